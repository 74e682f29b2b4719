"""Adapters with the further arguments of LoraConfig: what is saved is what was trained, and merges into one model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from heed import config, merge
from heed.config import SftConfig
from heed.errors import UserError
from heed.models import adapters, loading
from heed.models.adapters import Adapter
from world.small_world import MODELS, gpt2, save_model, tiny_tokenizer

PLAIN = Adapter(rank=4, alpha=8, dropout=0.0, target_modules=None)


def trained(base: Path, adapter: Adapter) -> Any:
    """Two steps of a random model; a fresh adapter's second half is zero, so that one step moves only that."""
    torch.manual_seed(1)
    model = adapters.add_adapter(loading.load_model(str(base)), adapter)
    batch = merge.any_batch(model)
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-2)
    for _ in range(2):
        model(**batch, labels=batch["input_ids"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("gpt2", {"use_rslora": True}),
        ("gpt2", {"use_dora": True}),
        ("gpt_neox", {"use_dora": True}),
        ("gpt2", {"init_lora_weights": False}),
        ("gpt2", {"init_lora_weights": "gaussian"}),
        ("gpt2", {"init_lora_weights": "orthogonal"}),
        ("gpt2", {"modules_to_save": ["ln_f", "wpe"]}),
        ("gpt_neox", {"modules_to_save": ["embed_in", "lm_head"], "use_dora": True}),
    ],
    ids=str,
)
def test_what_was_trained_loads_again_and_merges_to_the_same_logits(
    tmp_path: Path, name: str, changes: dict[str, Any]
) -> None:
    base = save_model(tmp_path / "base", MODELS[name]())
    model = trained(base, replace(PLAIN, **changes))
    batch = merge.any_batch(model)
    assert loading.max_logit_difference(model, loading.load_model(str(base)), batch) > 1e-3
    folder = tmp_path / "adapter"
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    assert loading.max_logit_difference(model, loading.load_finished(str(folder)), batch) == 0.0

    merge.merge(str(folder), tmp_path / "merged")
    merged = loading.load_model(str(tmp_path / "merged"))
    assert loading.max_logit_difference(model, merged, batch) < 1e-4


def test_only_the_module_that_was_named_is_trained_whole() -> None:
    model = adapters.add_adapter(gpt2(), replace(PLAIN, modules_to_save=["h.0.ln_1"]))
    whole = {name for name, each in model.named_parameters() if each.requires_grad and "lora_" not in name}
    there = "base_model.model.transformer.h.0.ln_1.modules_to_save.default"
    assert whole == {f"{there}.weight", f"{there}.bias"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modules_to_save": ["norm"]}, "'norm' is no module that .* those are ln_1, ln_2, ln_f, wpe"),
        ({"modules_to_save": ["c_attn"]}, "modules_to_save: 'c_attn' is no module"),
        ({"modules_to_save": ["lm_head"]}, "'lm_head' shares its weights .* train all weights with use_peft: false"),
        ({"modules_to_save": ["ln_f", "wte"]}, "'wte' shares its weights"),
        ({"init_lora_weights": "orthogonal", "rank": 3}, "use_peft: .* rank to be even, got 3"),
    ],
)
def test_what_cannot_be_trained_beside_an_adapter_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        adapters.add_adapter(gpt2(), replace(PLAIN, **changes))


def test_an_orthogonal_beginning_is_refused_on_4_bit_weights() -> None:
    model: Any = gpt2()
    model.is_loaded_in_4bit = True
    with pytest.raises(UserError, match="orthogonal does not work with load_in_4bit: true; set gaussian or true"):
        adapters.add_adapter(model, replace(PLAIN, init_lora_weights="orthogonal"))


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("false", False), ("gaussian", "gaussian"), ("orthogonal", "orthogonal")]
)
def test_how_an_adapter_begins_is_one_of_a_few(text: str, value: bool | str) -> None:
    wanted = config.field_types(SftConfig)["init_lora_weights"]
    assert config.convert(text, wanted, "init_lora_weights") == value


@pytest.mark.parametrize("text", ["pissa", "olora", "eva", "loftq"])
def test_a_beginning_that_rewrites_the_base_is_refused_in_a_sentence(text: str) -> None:
    wanted = config.field_types(SftConfig)["init_lora_weights"]
    with pytest.raises(UserError, match=f"'{text}' is not true, false, gaussian or orthogonal; the others"):
        config.convert(text, wanted, "init_lora_weights")
