"""llama.cpp's converter, told of a run folder what it does not look for: a program with a path of its own.

PYTHONPATH=.venv/export python -P heed/export/converter.py RUN --outtype f16 --outfile FILE
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import convert_hf_to_gguf
import gguf
from conversion.base import ModelBase, TextModel
from transformers import AutoTokenizer

FOLDER = Path(sys.argv[1])
CONTRACT = json.loads((FOLDER / "prompt_contract.json").read_text(encoding="utf-8"))
TOKENIZER = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
KEYS = gguf.Keys.Tokenizer
STOPS = (KEYS.EOS_ID, KEYS.EOT_ID, KEYS.EOM_ID)  # the ones that llama.cpp has names for; each ends an answer


def main() -> None:
    if len(CONTRACT["stop_token_ids"]) > len(STOPS):
        sys.exit(f"{len(CONTRACT['stop_token_ids'])} tokens stop it, and a GGUF file has room for {len(STOPS)}")
    ModelBase.load_hparams = staticmethod(with_old_names(ModelBase.load_hparams))
    TextModel.get_vocab_base_pre = with_plain_bytes(TextModel.get_vocab_base_pre)
    TextModel._set_vocab_sentencepiece = set_vocabulary
    TextModel.prepare_metadata = with_contract(TextModel.prepare_metadata)
    gguf.LlamaHfVocab.get_token_score = merge_score
    AutoTokenizer.from_pretrained = without_foreign_code(AutoTokenizer.from_pretrained)  # type: ignore[method-assign]
    convert_hf_to_gguf.main()


def with_old_names(read: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """transformers 5 writes some settings under other names than the converter reads."""

    def load(*words: Any, **named: Any) -> dict[str, Any]:
        found = read(*words, **named)
        rope = found.get("rope_parameters") or {}
        old = {"n_ctx": found.get("n_positions"), "rotary_pct": rope.get("partial_rotary_factor")}
        return {name: value for name, value in old.items() if value is not None} | found

    return load


def with_plain_bytes(recognize: Callable[..., str]) -> Callable[..., str]:
    """The converter knows a way of splitting text by what a known vocabulary makes of one; a tokenizer of one's own is
    known by how it says that it splits."""

    def name(self: Any, tokenizer: Any) -> str:
        try:
            return recognize(self, tokenizer)
        except NotImplementedError:
            way = TOKENIZER["pre_tokenizer"]
            if way["type"] == "ByteLevel" and way["use_regex"] and not way["add_prefix_space"]:
                return "gpt-2"
            sys.exit(f"its tokenizer splits text in a way that llama.cpp is not known to have: {json.dumps(way)}")

    return name


def set_vocabulary(self: Any, *_: Any) -> None:
    """From tokenizer.json: a run folder has no tokenizer.model, which the converter asks some families for."""
    if TOKENIZER["model"].get("byte_fallback"):
        self._set_vocab_llama_hf()
    else:
        self._set_vocab_gpt2()


RANKS = {"".join(pair): -float(rank) for rank, pair in reversed(list(enumerate(TOKENIZER["model"].get("merges", []))))}


def merge_score(self: Any, token_id: int) -> float:
    """llama.cpp joins the pair with the highest score first; that is the order of the merges."""
    return RANKS.get(self.tokenizer.convert_ids_to_tokens(token_id), 0.0)


def with_contract(prepare: Callable[..., None]) -> Callable[..., None]:
    """The template and the stops are the contract's. llama.cpp puts a BOS where the tokenizer does, in place of the
    template's, and never an EOS."""

    def prepare_metadata(self: Any, vocab_only: bool) -> None:
        prepare(self, vocab_only)
        writer = self.gguf_writer
        for key in (*STOPS, KEYS.CHAT_TEMPLATE, KEYS.ADD_BOS, KEYS.ADD_EOS):
            writer.kv_data[0].pop(key, None)
        end = CONTRACT["golden_response_ids"][-1]
        others = [stop for stop in CONTRACT["stop_token_ids"] if stop != end]
        for key, stop in zip(STOPS, [end, *others], strict=False):
            writer.add_uint32(key, stop)
        writer.add_chat_template(CONTRACT["template"])
        first = AutoTokenizer.from_pretrained(FOLDER).encode("a")[0]
        writer.add_add_bos_token(first == CONTRACT["golden_prompt_ids"][0] == writer.kv_data[0][KEYS.BOS_ID].value)
        writer.add_add_eos_token(False)

    return prepare_metadata


def without_foreign_code(load: Callable[..., Any]) -> Callable[..., Any]:
    """The converter would run code that a folder brings."""
    return lambda *words, **named: load(*words, **(named | {"trust_remote_code": False}))


if __name__ == "__main__":
    main()
