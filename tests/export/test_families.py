"""Families of models as GGUF files: llama.cpp writes what transformers writes (`make export-setup`)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from heed.answers.decoding import decode_alone
from heed.export import convert, llama_cpp
from heed.models import loading
from heed.prompts.template import load_prompt
from world.small_world import FAMILIES, save_model, tiny_tokenizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not convert.is_installed(), reason="make export-setup"),
    pytest.mark.skipif(llama_cpp.command() is None, reason="make export-setup"),
]
QUESTIONS = ("Which colour does grass have?", "What do you call a young seal? Say it in one word.", "Add 12 and 30.")
# llama.cpp takes these for granted of a family, as its published models have them; the small world's differ on purpose.
PUBLISHED: dict[str, dict[str, Any]] = {
    **{name: {} for name in FAMILIES},
    "mistral": {"sliding_window": None},
    "gemma2": {"query_pre_attn_scalar": 8},
    "gemma3": {"query_pre_attn_scalar": 8, "sliding_window_pattern": 6},
    "phi3": {"sliding_window": None},
    "smollm3": {"use_sliding_window": False, "sliding_window": None, "layer_types": None},
}
del PUBLISHED["qwen2 with windows"]  # it has none in llama.cpp


@pytest.mark.parametrize("family", PUBLISHED)
def test_llama_cpp_writes_what_transformers_writes(family: str, tmp_path: Path) -> None:
    spread = {} if family == "gemma2" else {"initializer_range": 0.3}  # answers are to vary
    folder = save_model(tmp_path / "model", FAMILIES[family](**(spread | PUBLISHED[family])))
    prompt = load_prompt("chatml", tiny_tokenizer())
    prompt.contract().save(folder)

    convert.convert(folder, tmp_path / "model.gguf", type="f32", name="model")

    model = loading.load_finished(str(folder)).eval()
    command = llama_cpp.command()
    assert command is not None
    with llama_cpp.serving(command, tmp_path / "model.gguf", context=256) as server:
        for question in QUESTIONS:
            text = server.render([{"role": "user", "content": question}])
            ids = prompt.encode_prompt([{"role": "user", "content": question}])
            assert server.tokenize(text) == ids
            ours = decode_alone(model, ids, limit=12, stop_token_ids=[0], pad_token_id=0)
            theirs = server.answer(text, limit=12)
            same = next((place for place in range(12) if ours[: place + 1] != theirs[: place + 1]), 12)
            if same < 12:  # it keeps keys and values in half precision: a tie of weights as wild as these may fall
                with torch.no_grad():
                    logits = model(torch.tensor([ids + ours[:same]])).logits[0, -1]
                assert logits.max() - logits[theirs[same]] < 0.02


def test_a_bos_is_put_once(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    begun = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = begun
    folder = save_model(tmp_path / "model", FAMILIES["llama"](vocab_size=2001, bos_token_id=2000))
    tokenizer.save_pretrained(folder)
    prompt = load_prompt("chatml", loading.load_tokenizer(str(folder)))
    prompt.contract().save(folder)
    convert.convert(folder, tmp_path / "model.gguf", type="f32", name="model")
    command = llama_cpp.command()
    assert command is not None
    with llama_cpp.serving(command, tmp_path / "model.gguf", context=256) as server:
        text = server.render([{"role": "user", "content": "Which?"}])
        ids = prompt.encode_prompt([{"role": "user", "content": "Which?"}])
        assert ids[0] == 2000
        assert server.tokenize(text) == ids
