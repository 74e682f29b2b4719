from typing import Any

import pytest

from heed.tokens import batches
from heed.tokens.batches import FlatCollator, PaddingCollator, grained, shared_prefix, supervised_tokens

E = 50256


def test_padding_learns_the_first_eos_and_no_later_one() -> None:
    rows = [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]]
    examples = [{"prompt_ids": row[:1], "response_ids": [*row[1:], E]} for row in rows]
    batch = PaddingCollator(pad_token_id=E, loss_on="all")(examples)
    inputs, targets = batch["input_ids"][:, :-1], batch["labels"][:, 1:]  # the causal shift
    assert inputs.tolist() == [[0, 1, 2, 3, 4], [5, 6, E, E, E], [7, 8, 9, E, E]]
    assert targets.tolist() == [[1, 2, 3, 4, E], [6, E, -100, -100, -100], [8, 9, E, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]]


def test_the_prompt_is_not_learned_under_loss_on_response() -> None:
    batch = PaddingCollator(pad_token_id=E, loss_on="response")(
        [{"prompt_ids": [1, 2, 3], "response_ids": [4, E]}, {"prompt_ids": [5], "response_ids": [E]}]
    )
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, E], [5, E, E, E, E]]
    assert batch["labels"].tolist() == [[-100, -100, -100, 4, E], [-100, E, -100, -100, -100]]


def test_a_cut_response_does_not_learn_to_stop() -> None:
    batch = PaddingCollator(pad_token_id=E, loss_on="response")(
        [{"prompt_ids": [1], "response_ids": [2, 3]}, {"prompt_ids": [1], "response_ids": [2, 3, 4, E]}]
    )
    assert batch["labels"].tolist() == [[-100, 2, 3, -100, -100], [-100, 2, 3, 4, E]]


def test_eos_inside_a_row_does_not_end_it() -> None:
    """Labels come from lengths: an id that equals the pad id is learned like any other."""
    batch = PaddingCollator(pad_token_id=E, loss_on="all")([{"prompt_ids": [1, E, 2], "response_ids": [3, E]}])
    assert batch["labels"].tolist() == [[-100, E, 2, 3, E]]


def test_logits_are_kept_only_where_some_row_has_a_target() -> None:
    batch = PaddingCollator(pad_token_id=E, loss_on="response")(
        [{"prompt_ids": [1, 2, 3], "response_ids": [4, E]}, {"prompt_ids": [1, 2], "response_ids": [E]}]
    )
    assert batch["logits_to_keep"].tolist() == [1, 2, 3]  # places 2, 3 and 4 are predicted from there
    assert batch["targets"].tolist() == [-100, 4, E, E, -100, -100]
    assert batch["weights"].tolist() == [0, 1, 1, 1, 0, 0]
    assert batch["row_targets"] == (3, 3) and batch["tokens"].item() == 8


ROWS = [
    {"prompt_ids": [1, 2, 3], "response_ids": [4, E]},
    {"prompt_ids": [1, 2], "response_ids": [7, 8, E]},
    {"prompt_ids": [1, 2, 3, 9], "response_ids": [E]},
]


def flat(loss_on: Any, **changes: Any) -> dict[str, Any]:
    options = {"pad_token_id": E, "loss_on": loss_on, "share_prefix": False}
    batch = FlatCollator(**(options | changes))(ROWS)
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in batch.items()}


def test_a_flat_row_is_the_examples_end_to_end() -> None:
    batch = flat("response")
    assert batch["input_ids"] == [[1, 2, 3, 4, E, 1, 2, 7, 8, E, 1, 2, 3, 9, E]]
    assert batch["position_ids"] == [[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4]]
    assert batch["logits_to_keep"] == [2, 3, 6, 7, 8, 13]
    assert batch["targets"] == [4, E, 7, 8, E, E]
    assert batch["weights"] == [1, 1, 1, 1, 1, 1]
    assert (batch["segment_lengths"], batch["prefix_length"], batch["tokens"]) == ((5, 5, 5), 0, 15)


def test_the_common_prefix_stands_in_the_row_once() -> None:
    batch = flat("response", share_prefix=True)
    assert batch["input_ids"] == [[1, 2, 3, 4, E, 7, 8, E, 3, 9, E]]
    assert batch["position_ids"] == [[0, 1, 2, 3, 4, 2, 3, 4, 2, 3, 4]]
    # The second row's first target follows the prefix itself, whose last token stands at place 1.
    assert batch["logits_to_keep"] == [2, 3, 1, 5, 6, 9]
    assert batch["targets"] == [4, E, 7, 8, E, E]
    assert (batch["segment_lengths"], batch["prefix_length"], batch["tokens"]) == ((2, 3, 3, 3), 2, 15)


def test_a_target_in_the_prefix_counts_for_every_row() -> None:
    batch = flat("all", share_prefix=True)
    assert batch["logits_to_keep"] == [0, 1, 2, 3, 1, 5, 6, 1, 8, 9]
    assert batch["targets"] == [2, 3, 4, E, 7, 8, E, 3, 9, E]
    assert batch["weights"] == [3, 1, 1, 1, 1, 1, 1, 1, 1, 1]


def test_by_row_each_example_has_its_own_targets() -> None:
    batch = flat("all", share_prefix=True, by_row=True)
    assert batch["targets"] == [2, 3, 4, E, 2, 7, 8, E, 2, 3, 9, E]
    assert batch["logits_to_keep"] == [0, 1, 2, 3, 0, 1, 5, 6, 0, 1, 8, 9]
    assert batch["row_targets"] == (4, 4, 4) == tuple(supervised_tokens(row, "all") for row in ROWS)
    assert tuple(supervised_tokens(row, "response") for row in ROWS) == (2, 3, 1)


def test_filling_is_further_examples_that_teach_nothing() -> None:
    """Three examples become eight, eleven tokens sixteen, six targets eight."""
    batch = flat("response", share_prefix=True, multiple=4)
    assert batch["input_ids"] == [[1, 2, 3, 4, E, 7, 8, E, 3, 9, E, E, E, E, E, E]]
    assert batch["position_ids"][0][-5:] == [0, 0, 0, 0, 0]
    assert batch["segment_lengths"] == (2, 3, 3, 3, 1, 1, 1, 1, 1)
    assert batch["targets"] == [4, E, 7, 8, E, E, 0, 0] and batch["weights"] == [1, 1, 1, 1, 1, 1, 0, 0]
    assert batch["tokens"] == 15


def test_a_long_row_is_not_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST_FILLED", 10)
    assert flat("response", share_prefix=True, multiple=4) == flat("response", share_prefix=True)


@pytest.mark.parametrize(
    ("number", "filled"), [(1, 64), (64, 64), (65, 128), (1023, 1024), (1025, 1088), (2049, 2176), (16_385, 17_408)]
)
def test_lengths_are_filled_up_by_a_sixteenth_at_most(number: int, filled: int) -> None:
    assert grained(number, 64) == filled
    assert grained(number, 1) == number


def test_the_layout_for_varlen_attention_gathers_the_prefix_for_each_example() -> None:
    batch = flat("response", share_prefix=True, varlen=True)
    assert batch["cu_seq_lens_q"] == [0, 2, 5, 8, 11]
    assert batch["cu_seq_lens_k"] == [0, 2, 7, 12, 17]
    assert batch["kv_index"] == [0, 1, 0, 1, 2, 3, 4, 0, 1, 5, 6, 7, 0, 1, 8, 9, 10]
    assert (batch["max_length_q"], batch["max_length_k"]) == (3, 5)
    alone = flat("response", varlen=True)
    assert alone["cu_seq_lens_q"] == alone["cu_seq_lens_k"] == [0, 5, 10, 15] and "kv_index" not in alone


@pytest.mark.parametrize(
    ("rows", "length"),
    [([[1, 2, 3], [1, 2, 4]], 2), ([[1, 2], [1, 2, 3]], 1), ([[1, 2], [1, 2]], 1), ([[1], [1, 2]], 0), ([[1, 2]], 0)],
)
def test_the_longest_common_prefix_leaves_every_row_a_part_of_its_own(rows: list[list[int]], length: int) -> None:
    assert shared_prefix(rows) == length
