import json
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BloomConfig, MambaConfig, MptConfig, PreTrainedModel

from heed.errors import UserError
from heed.models import adapters, loading
from heed.prompts.template import load_prompt
from heed.tokens.batches import PaddingCollator
from world.loopback_hub import environment, serve
from world.small_world import MODELS, ROOT, example, gemma2, gpt2, save_model, tiny_tokenizer

ADAPTER = adapters.Adapter(rank=4, alpha=8, dropout=0.0, target_modules=None)
EXAMPLES = [example([1, 2], [3, 4, 0]), example([5], [6, 0])]
PADDED = PaddingCollator(pad_token_id=0, loss_on="response")(EXAMPLES)
BATCH = {name: PADDED[name] for name in ("input_ids", "attention_mask", "labels")}


def test_lora_sits_on_every_projection_of_a_block(model: PreTrainedModel) -> None:
    adapted = adapters.add_adapter(model, ADAPTER)
    found = {name.split(".lora_A")[0].rsplit(".", 1)[-1] for name, _ in adapted.named_parameters() if "lora_A" in name}
    expected = {
        "gpt2": {"c_attn", "c_proj", "c_fc"},
        "gpt_neox": {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
    }
    assert found == expected[model.config.model_type]
    assert all("lora_" in name for name, parameter in adapted.named_parameters() if parameter.requires_grad)


def test_a_fresh_adapter_changes_nothing_and_a_saved_one_loads_to_the_same_logits(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", gpt2())
    adapted = adapters.add_adapter(loading.load_model(str(base)), ADAPTER)
    assert loading.max_logit_difference(adapted, gpt2(), BATCH) == 0.0
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    reloaded = loading.load_finished(str(tmp_path / "adapter"))
    assert loading.max_logit_difference(adapted, reloaded, BATCH) == 0.0
    assert loading.max_logit_difference(adapted, gpt2(), BATCH) > 0.01


def test_wrong_adapter_targets_name_the_right_layers() -> None:
    adapter = adapters.Adapter(rank=4, alpha=8, dropout=0.0, target_modules=["q_proj"])
    with pytest.raises(UserError, match="no layer 'q_proj'; it has c_attn, c_fc, c_proj"):
        adapters.add_adapter(gpt2(), adapter)


def test_weights_are_loaded_as_float32_whatever_they_are_stored_as(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "half", gpt2().half())
    assert loading.load_model(str(folder)).dtype == torch.float32
    assert loading.load_model(str(folder), dtype="bfloat16").dtype == torch.bfloat16


def test_a_pickle_is_not_loaded(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "pickled", gpt2())
    (folder / "model.safetensors").unlink()
    torch.save(gpt2().state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="could not be loaded"):
        loading.load_model(str(folder))


def test_a_pickled_adapter_is_not_loaded(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", gpt2())
    adapted = adapters.add_adapter(loading.load_model(str(base)), ADAPTER)
    adapted.save_pretrained(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    torch.save({}, tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(UserError, match="Heed loads no pickles"):
        loading.load_finished(str(tmp_path / "adapter"))


def test_a_weight_that_no_file_has_is_refused_not_drawn_at_random(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    save_model(base, gpt2())
    adapters.add_adapter(loading.load_model(str(base)), ADAPTER).save_pretrained(adapter)
    without(adapter / "adapter_model.safetensors", "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight")
    with pytest.raises(UserError, match=r"(?s)adapter.*missing adapter keys.*h\.0\.attn\.c_attn\.lora_A"):
        loading.load_finished(str(adapter))
    without(base / "model.safetensors", "transformer.h.0.attn.c_attn.weight", "transformer.h.0.ln_1.bias")
    wanted = r"has no transformer\.h\.0\.attn\.c_attn\.weight and 1 other, which would be random"
    with pytest.raises(UserError, match=wanted):
        loading.load_model(str(base))


def without(file: Path, *names: str) -> None:
    tensors = load_file(file)
    save_file({name: each for name, each in tensors.items() if name not in names}, file, {"format": "pt"})


def test_a_missing_model_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Give a folder with config.json, .* or a Hub id such as"):
        loading.load_model(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"the tokenizer .* could not be loaded"):
        loading.load_tokenizer(str(tmp_path))


def test_one_dropout_sets_them_all(tmp_path: Path) -> None:
    folder = str(save_model(tmp_path / "gpt2", gpt2(resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1)))
    config = loading.load_model(folder, dropout=0.3).config
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.3, 0.3, 0.3)
    assert loading.load_model(folder).config.attn_pdrop == 0.1
    neox = str(save_model(tmp_path / "neox", MODELS["gpt_neox"]()))
    config = loading.load_model(neox, dropout=0.2).config
    assert (config.attention_dropout, config.hidden_dropout) == (0.2, 0.2)


def test_the_context_length_is_known(model: PreTrainedModel) -> None:
    assert loading.context_length(model) == 256


def test_the_context_length_of_families_without_a_table_of_positions() -> None:
    assert loading.positions(MptConfig(max_seq_len=512)) == 512
    bloom = BloomConfig()
    assert loading.positions(bloom) == 2048
    bloom.seq_length = 1024  # as some files have it
    assert loading.positions(bloom) == 1024


def test_a_model_without_attention_is_refused_in_a_sentence(tmp_path: Path) -> None:
    MambaConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is a mamba model; Heed supports only causal language models with attention"):
        loading.load_model(str(tmp_path))


def test_a_tokenizer_with_more_tokens_than_the_embedding_has_rows_is_refused() -> None:
    tokenizer, config = tiny_tokenizer(), gpt2().config
    loading.check_vocabulary(tokenizer, config, "tiny")
    tokenizer.add_tokens(["<shelf>", "<book>"])
    with pytest.raises(UserError, match="has 2,002 tokens and the model's embedding 2,000 rows, so '<shelf>' and what"):
        loading.check_vocabulary(tokenizer, config, "tiny")


def test_a_model_that_caps_its_scores_gets_an_attention_that_can(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "gemma2", gemma2())
    assert loading.load_model(str(folder)).config._attn_implementation == "eager"


def test_parameters_are_counted() -> None:
    total, trained = loading.parameter_counts(adapters.add_adapter(gpt2(), ADAPTER))
    # c_attn 32x96, c_proj 32x32 and 128x32, c_fc 32x128: rank 4 adds 4 * (inputs + outputs) for each of 2 layers
    assert trained == 2 * 4 * ((32 + 96) + (32 + 32) + (128 + 32) + (32 + 128))
    assert total > trained


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", MODELS)
def test_a_qlora_adapter_learns_after_an_evaluation_and_loads_again(
    tmp_path: Path, name: str, bits: Literal[4, 8]
) -> None:
    """Really quantized, on the CPU. bitsandbytes must not repack the weights at the first evaluation."""
    pytest.importorskip("bitsandbytes", reason="make setup-qlora")
    sizes = {"gpt2": {"n_embd": 64}, "gpt_neox": {"hidden_size": 64, "intermediate_size": 128}}  # blocks of 64
    base = save_model(tmp_path / "base", MODELS[name](**sizes[name]))
    model = adapters.add_adapter(loading.load_model(str(base), bits=bits), ADAPTER)
    assert any(f"Linear{bits}bit" in type(module).__name__ for module in model.modules())
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-2)
    losses = []
    for _ in range(5):
        model.eval()
        with torch.no_grad():
            model(**BATCH)
        model.train()
        loss = model(**BATCH).loss
        loss.backward()
        assert all(each.grad is not None for each in model.parameters() if each.requires_grad)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    model.save_pretrained(tmp_path / "adapter")
    reloaded = loading.load_finished(str(tmp_path / "adapter"), bits=bits)
    assert loading.max_logit_difference(model, reloaded, BATCH) < 1e-5


LOAD_FROM_HUB = """
import json, sys
from heed.models import adapters, loading
from heed.errors import UserError
from heed.prompts.template import load_prompt
from heed.prompts.template import fetch_contract, prompt_from_contract
tokenizer = loading.load_tokenizer("us/tuned")
contract = fetch_contract("us/tuned")
prompt = prompt_from_contract(contract, tokenizer)
adapter = loading.load_finished("us/adapter")
try:
    loading.load_model("us/nothing")
except UserError as error:
    missing = str(error)
print(json.dumps({
    "prompt": prompt.name, "none": fetch_contract("us/base") is None, "adapter": type(adapter).__name__,
    "tuned": type(loading.load_finished("us/tuned")).__name__, "missing": missing,
}))
"""


def test_models_adapters_and_contracts_are_found_by_hub_id(tmp_path: Path) -> None:
    """The real clients against a Hub on this machine."""
    models = tmp_path / "hub" / "models" / "us"
    save_model(models / "base", gpt2())
    load_prompt("question", tiny_tokenizer()).contract().save(save_model(models / "tuned", gpt2()))
    adapted = adapters.add_adapter(loading.load_model(str(models / "base")), ADAPTER)
    adapted.peft_config["default"].base_model_name_or_path = "us/base"
    adapted.save_pretrained(models / "adapter")
    with serve(tmp_path / "hub") as endpoint:
        variables = environment(endpoint, tmp_path / "home") | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", LOAD_FROM_HUB]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["prompt"], found["none"]) == ("question", True)
    assert (found["tuned"], found["adapter"]) == ("GPT2LMHeadModel", "PeftModelForCausalLM")
    assert "the model 'us/nothing' could not be loaded" in found["missing"]
