import pytest
from transformers import PreTrainedTokenizerBase

from heed.tokens.batches import FlatCollator, LossOn, PaddingCollator
from heed.tokens.preview import measure_learned, one_line, places_in_loss, preview, preview_rows, token_texts
from world.small_world import example


def test_every_token_shows_its_border_and_whether_it_is_learned(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer.encode("Say\nit.", add_special_tokens=False)
    learned = [len(ids) - 1]
    plain = preview(tokenizer, ids, learned, color=False)
    assert plain.endswith("\\n|it|[.]") and plain.replace("|", "").startswith("Say")
    assert "\033[32m.\033[0m" in preview(tokenizer, ids, learned, color=True)


def test_rows_are_previewed_as_the_collator_gives_them(tokenizer: PreTrainedTokenizerBase) -> None:
    row = example(tokenizer.encode("Go"), [*tokenizer.encode("."), 0], row_id=7)
    text = preview_rows(tokenizer, [row], PaddingCollator(pad_token_id=0, loss_on="response"))
    assert f"row 7: {len(tokenizer.encode('Go')) + 2} tokens, 2 learned" in text
    assert text.endswith("[.][<|endoftext|>]")


def test_control_characters_are_shown_and_not_obeyed() -> None:
    assert one_line("a\nb\x1b[31m") == "a\\nb\\x1b[31m"
    assert one_line("é 日\u3000👩\u200d👧") == "é 日\u3000👩\u200d👧"
    assert one_line("x" * 200) == "x" * 160 + " ..."


def test_a_letter_of_several_tokens_is_shown_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer.encode("狗.", add_special_tokens=False)
    assert token_texts(tokenizer, ids) == ["", "", "狗", "."]
    assert token_texts(tokenizer, ids[:1]) == ["\ufffd"]


@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_what_is_learned_is_read_from_the_targets_of_either_collator(loss_on: LossOn) -> None:
    examples = [
        example([5, 6, 7], [8, 0]),
        example([5, 6], [8, 9]),  # cut: no EOS
    ]
    for collator in (
        PaddingCollator(pad_token_id=0, loss_on=loss_on),
        FlatCollator(pad_token_id=0, loss_on=loss_on, share_prefix=True, multiple=8),
    ):
        assert places_in_loss(collator(examples[:1])) == ([3, 4] if loss_on == "response" else [1, 2, 3, 4])
        learned = measure_learned(examples, collator, 0)
        assert (learned.response, learned.prompt) == (1.0, 0.0 if loss_on == "response" else 0.6)
        assert (learned.whole, learned.eos) == (1, 1)
        assert str(learned).startswith("response 100 %, prompt " + ("0 %" if loss_on == "response" else "60 %"))


def test_a_cut_is_shown_where_it_is(tokenizer: PreTrainedTokenizerBase) -> None:
    row = example(tokenizer.encode("Go"), [11], row_id=0, outcome="cut_response")
    text = preview_rows(tokenizer, [row], PaddingCollator(pad_token_id=0, loss_on="response"), {0: "rows.json:1"})
    assert "row 0 (rows.json:1)" in text and "EOS not learned)" in text
    assert text.endswith("<cut: the response's end is cut off (max_length): EOS is not learned>")


def test_colors_are_for_terminals_that_want_them(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = example(tokenizer.encode("Go"), [11, 0], row_id=0)
    collator = PaddingCollator(pad_token_id=0, loss_on="response")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\033[32m<|endoftext|>\033[0m" in preview_rows(tokenizer, [row], collator)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033[" not in preview_rows(tokenizer, [row], collator)
