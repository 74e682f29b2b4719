import pytest
from transformers import PreTrainedTokenizerBase

from heed.batches import PaddingCollator
from heed.preview import one_line, preview, preview_rows


def test_every_token_shows_its_border_and_whether_it_is_learned(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer.encode("Say\nit.", add_special_tokens=False)
    learned = [len(ids) - 1]
    plain = preview(tokenizer, ids, learned, color=False)
    assert plain.endswith("\\n|it|[.]") and plain.replace("|", "").startswith("Say")
    assert "\033[32m.\033[0m" in preview(tokenizer, ids, learned, color=True)


def test_rows_are_previewed_as_the_collator_gives_them(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = {"row_id": 7, "prompt_ids": tokenizer.encode("Go"), "response_ids": [*tokenizer.encode("."), 0]}
    text = preview_rows(tokenizer, [example], PaddingCollator(pad_token_id=0, loss_on="response"))
    assert f"row 7: {len(example['prompt_ids']) + 2} tokens, 2 learned" in text
    assert text.endswith("[.][<|endoftext|>]")


def test_control_characters_are_shown_and_not_obeyed() -> None:
    assert one_line("a\nb\x1b[31m") == "a\\nb\\x1b[31m"
    assert one_line("é") == "é"
    assert one_line("x" * 200) == "x" * 160 + " ..."
