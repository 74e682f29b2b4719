from typing import Any

import pytest

from heed.tokens import batches, tree
from heed.tokens.batches import FlatCollator, PaddingCollator, grained
from heed.tokens.examples import supervised_tokens
from heed.tokens.tree import shared_prefix
from world.small_world import example

E = 50256


def test_padding_learns_the_first_eos_and_no_later_one() -> None:
    rows = [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]]
    examples = [example(row[:1], [*row[1:], E]) for row in rows]
    batch = PaddingCollator(pad_token_id=E, loss_on="all")(examples)
    inputs, targets = batch["input_ids"][:, :-1], batch["labels"][:, 1:]  # the causal shift
    assert inputs.tolist() == [[0, 1, 2, 3, 4], [5, 6, E, E, E], [7, 8, 9, E, E]]
    assert targets.tolist() == [[1, 2, 3, 4, E], [6, E, -100, -100, -100], [8, 9, E, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]]


def test_the_prompt_is_not_learned_under_loss_on_response() -> None:
    batch = PaddingCollator(pad_token_id=E, loss_on="response")([example([1, 2, 3], [4, E]), example([5], [E])])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, E], [5, E, E, E, E]]
    assert batch["labels"].tolist() == [[-100, -100, -100, 4, E], [-100, E, -100, -100, -100]]


def test_a_cut_response_does_not_learn_to_stop() -> None:
    batch = PaddingCollator(pad_token_id=E, loss_on="response")([example([1], [2, 3]), example([1], [2, 3, 4, E])])
    assert batch["labels"].tolist() == [[-100, 2, 3, -100, -100], [-100, 2, 3, 4, E]]


def test_eos_inside_a_row_does_not_end_it() -> None:
    """Labels come from lengths: an id that equals the pad id is learned like any other."""
    batch = PaddingCollator(pad_token_id=E, loss_on="all")([example([1, E, 2], [3, E])])
    assert batch["labels"].tolist() == [[-100, E, 2, 3, E]]


def test_logits_are_kept_only_where_some_row_has_a_target() -> None:
    batch = PaddingCollator(pad_token_id=E, loss_on="response")([example([1, 2, 3], [4, E]), example([1, 2], [E])])
    assert batch["logits_to_keep"].tolist() == [1, 2, 3]  # places 2, 3 and 4 are predicted from there
    assert batch["targets"].tolist() == [-100, 4, E, E, -100, -100]
    assert batch["weights"].tolist() == [0, 1, 1, 1, 0, 0]
    assert batch["row_targets"] == (3, 3) and batch["tokens"].item() == 8


ROWS = [
    example([1, 2, 3], [4, E]),
    example([1, 2], [7, 8, E]),
    example([1, 2, 3, 9], [E]),
]


@pytest.fixture(autouse=True)
def share_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few tokens it saves."""
    monkeypatch.setattr(tree, "LEAST", 1)


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
    assert (batch["segment_lengths"], batch["tokens"]) == ((5, 5, 5), 15) and "segment_parents" not in batch


def test_a_shared_beginning_is_in_the_row_once_at_every_depth() -> None:
    batch = flat("response", share_prefix=True)
    # 1 2 of all three, 3 of the first and the third; then what each has alone.
    assert batch["input_ids"] == [[1, 2, 3, 4, E, 9, E, 7, 8, E]]
    assert batch["position_ids"] == [[0, 1, 2, 3, 4, 3, 4, 2, 3, 4]]
    assert batch["segment_lengths"] == (2, 1, 2, 2, 3)
    assert batch["segment_parents"] == (None, 0, 1, 1, 0)
    # The second example's first target is predicted from the end of what all share, at place 1.
    assert batch["logits_to_keep"] == [2, 3, 5, 1, 7, 8]
    assert batch["targets"] == [4, E, E, 7, 8, E]
    assert batch["weights"] == [1, 1, 1, 1, 1, 1] and batch["tokens"] == 15


def test_a_target_that_several_examples_learn_counts_for_each() -> None:
    batch = flat("all", share_prefix=True)
    assert batch["logits_to_keep"] == [0, 1, 2, 3, 2, 5, 1, 7, 8]
    assert batch["targets"] == [2, 3, 4, E, 9, E, 7, 8, E]
    assert batch["weights"] == [3, 2, 1, 1, 1, 1, 1, 1, 1]


def test_by_row_each_example_has_its_own_targets() -> None:
    batch = flat("all", share_prefix=True, by_row=True)
    assert batch["targets"] == [2, 3, 4, E, 2, 7, 8, E, 2, 3, 9, E]
    assert batch["logits_to_keep"] == [0, 1, 2, 3, 0, 1, 7, 8, 0, 1, 2, 5]
    assert batch["row_targets"] == (4, 4, 4) == tuple(supervised_tokens(row, "all") for row in ROWS)
    assert tuple(supervised_tokens(row, "response") for row in ROWS) == (2, 3, 1)


def test_every_span_of_an_example_is_learned_and_nothing_between() -> None:
    talk = {"input_ids": [1, 2, 3, E, 4, 5, E, 6], "spans": [[2, 4], [5, 7]]}
    batch = PaddingCollator(pad_token_id=E, loss_on="response")([talk])
    assert batch["labels"].tolist() == [[-100, -100, 3, E, -100, 5, E, -100]]
    batch = FlatCollator(pad_token_id=E, loss_on="response", share_prefix=True)([talk, talk])
    assert batch["input_ids"].tolist() == [talk["input_ids"]]  # equal examples are computed once
    assert batch["targets"].tolist() == [3, E, 5, E] and batch["weights"].tolist() == [2, 2, 2, 2]


def test_filling_is_extra_segments_that_teach_nothing() -> None:
    """Five segments become eight, ten tokens sixteen, six targets eight."""
    batch = flat("response", share_prefix=True, multiple=4)
    assert batch["input_ids"] == [[1, 2, 3, 4, E, 9, E, 7, 8, E, E, E, E, E, E, E]]
    assert batch["position_ids"][0][-6:] == [0, 0, 0, 0, 0, 0]
    assert batch["segment_lengths"] == (2, 1, 2, 2, 3, 2, 2, 2)
    assert batch["segment_parents"] == (None, 0, 1, 1, 0, None, None, None)
    assert batch["targets"] == [4, E, E, 7, 8, E, 0, 0] and batch["weights"] == [1, 1, 1, 1, 1, 1, 0, 0]
    assert batch["tokens"] == 15


def test_a_long_row_is_not_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST_FILLED", 9)
    assert flat("response", share_prefix=True, multiple=4) == flat("response", share_prefix=True)


@pytest.mark.parametrize(
    ("number", "filled"), [(1, 64), (64, 64), (65, 128), (1023, 1024), (1025, 1088), (2049, 2176), (16_385, 17_408)]
)
def test_lengths_are_filled_up_by_a_sixteenth_at_most(number: int, filled: int) -> None:
    assert grained(number, 64) == filled
    assert grained(number, 1) == number


def test_the_layout_for_varlen_attention_gathers_what_comes_before_each_segment() -> None:
    batch = flat("response", share_prefix=True, varlen=True)
    assert batch["cu_seq_lens_q"] == [0, 2, 3, 5, 7, 10]
    assert batch["cu_seq_lens_k"] == [0, 2, 5, 10, 15, 20]
    assert batch["kv_index"] == [0, 1, 0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 2, 5, 6, 0, 1, 7, 8, 9]
    assert (batch["max_length_q"], batch["max_length_k"]) == (3, 5)
    alone = flat("response", varlen=True)
    assert alone["cu_seq_lens_q"] == alone["cu_seq_lens_k"] == [0, 5, 10, 15] and "kv_index" not in alone


def test_with_filling_the_gathered_keys_are_of_few_lengths_too() -> None:
    batch = flat("response", share_prefix=True, varlen=True, multiple=16)
    assert len(batch["cu_seq_lens_q"]) == 9 and batch["cu_seq_lens_q"][-1] == 16
    assert batch["cu_seq_lens_k"][-1] == len(batch["kv_index"]) == 32


@pytest.mark.parametrize(
    ("rows", "length"),
    [([[1, 2, 3], [1, 2, 4]], 2), ([[1, 2], [1, 2, 3]], 1), ([[1, 2], [1, 2]], 1), ([[1], [1, 2]], 0), ([[1, 2]], 0)],
)
def test_a_shared_prefix_leaves_something_of_every_row(rows: list[list[int]], length: int) -> None:
    assert shared_prefix(rows) == length
