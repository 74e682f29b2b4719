from typing import Any

import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from torch.utils.data import DataLoader

from heed.errors import UserError
from heed.tokens.order import RowBatches, Strategy
from heed.tokens.tree import families
from world.pairwise import pairwise

STRATEGIES: tuple[Strategy, ...] = ("random", "group_by_length", "sequential")
BY_ROWS: dict[str, Any] = {"rows_per_batch": 4, "tokens_per_batch": None}
BY_TOKENS: dict[str, Any] = {"rows_per_batch": None, "tokens_per_batch": 1300}


def skewed_lengths(rows: int) -> np.ndarray:
    """Row lengths as in instruction data: most short, a few very long."""
    return np.minimum(1024, np.random.RandomState(0).lognormal(4.6, 0.7, rows).astype(int) + 10)


def row_batches(lengths: Any, **changes: Any) -> RowBatches:
    settings: dict[str, Any] = {"strategy": "random", "seed": 7, "epochs": 3} | changes
    if settings["strategy"] == "group_by_prefix":
        settings["families"] = np.arange(len(lengths)) // 3
    return RowBatches(np.asarray(lengths), **settings)


def padding_share(sampler: RowBatches) -> float:
    padded = sum(len(batch) * sampler.lengths[batch].max() for batch in sampler.plan(1))
    return float(1 - sampler.lengths.sum() / padded)


SIZES = {"rows": BY_ROWS, "tokens": BY_TOKENS, "one": BY_ROWS | {"rows_per_batch": 1}}
WAYS = {"strategy": STRATEGIES, "processes": [1, 2, 3, 8], "rows": [64, 65, 203], "sizes": [*SIZES]}


@pytest.mark.parametrize(tuple(WAYS), pairwise(WAYS))
def test_every_process_sees_as_many_batches_and_every_row_is_in_one(
    strategy: Strategy, processes: int, rows: int, sizes: str
) -> None:
    lengths = skewed_lengths(rows)
    samplers = [
        row_batches(lengths, strategy=strategy, processes=processes, process_index=index, **SIZES[sizes])
        for index in range(processes)
    ]
    for epoch in range(3):
        parts = []
        for sampler in samplers:
            sampler.set_epoch(epoch)
            parts.append(list(sampler))
            assert len(parts[-1]) == len(sampler) == len(samplers[0])
        batches = [batch for part in parts for batch in part]
        assert all(batches)
        assert sorted(row for batch in batches for row in batch) == list(range(rows))
        if sizes == "tokens":
            assert max(lengths[batch].sum() for batch in batches) <= 1300
        else:  # never more than the longest rows together, which the rehearsal tries
            most = 4 if sizes == "rows" else 2
            assert max(lengths[batch].sum() for batch in batches) <= np.sort(lengths)[-most:].sum()
        assert samplers[0].plan(epoch) == [batch for group in zip(*parts, strict=True) for batch in group]


def test_rows_in_order_by_hand() -> None:
    by_two = {"rows_per_batch": 2, "tokens_per_batch": None, "strategy": "sequential"}
    assert row_batches([1] * 5, **by_two).plan(0) == [[0, 1], [2, 3], [4]]
    assert row_batches([1] * 7, **by_two, processes=2).plan(0) == [[0, 1], [2, 3], [4, 5], [6]]
    assert row_batches([1] * 7, **by_two, processes=2, drop_last=True).plan(0) == [[0, 1], [2, 3]]
    # One row is left for two processes: the last group of four shares its rows.
    assert row_batches([1] * 9, **by_two, processes=2).plan(0) == [[0, 1], [2, 3], [4, 5], [6], [7], [8]]
    # One row a batch, and one left for three processes: the two shortest rows of the last group go together.
    one = by_two | {"rows_per_batch": 1}
    assert row_batches([9, 9, 9, 3, 8, 2, 7], **one, processes=3).plan(0) == [[0], [1], [2], [5, 3], [6], [4]]


def test_tokens_in_order_by_hand() -> None:
    lengths = [5, 3, 8, 2, 7, 1]
    by_ten = {"rows_per_batch": None, "tokens_per_batch": 10, "strategy": "sequential"}
    assert row_batches(lengths, **by_ten).plan(0) == [[0, 1], [2, 3], [4, 5]]
    # Three batches are no multiple of two: the one of ten tokens is cut.
    assert row_batches(lengths, **by_ten, processes=2).plan(0) == [[0, 1], [2], [4], [3, 5]]


def test_the_rows_of_a_step_are_dealt_by_hand() -> None:
    lengths = [9, 2, 8, 7, 1, 3]
    by_three = {"rows_per_batch": 3, "tokens_per_batch": None, "strategy": "sequential", "processes": 2}
    # 9 | 8, then 7 to the 8, 3 to the 9, 2 to the 12, 1 to the 14. As cut they had 19 and 11 tokens.
    assert row_batches(lengths, **by_three).plan(0) == [[0, 5, 1, 4], [2, 3]]
    # Padded: 9, 8 and 7 fill 27 places, 9 and 8 would leave four rows of 28. As cut they fill 27 too, so they stay.
    assert row_batches(lengths, **by_three, padded=True).plan(0) == [[0, 1, 2], [3, 4, 5]]
    # Two rows of nine fill 18 places, four of three 12. As cut they filled 27 and 9.
    assert row_batches([9, 9, 3, 3, 3, 1], **by_three, padded=True).plan(0) == [[0, 1], [2, 3, 4, 5]]


def alpaca_like_lengths() -> np.ndarray:
    """999 rows with the mean, the spread and the longest row of Alpaca's answers in GPT-2's tokens."""
    return np.clip(np.random.RandomState(0).lognormal(5.07, 0.71, 999), 20, 846).astype(int)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("accumulation", [1, 4])
def test_eight_processes_have_even_work_in_every_step(strategy: Strategy, accumulation: int) -> None:
    sizes = [BY_ROWS, BY_ROWS | {"rows_per_batch": 8, "padded": True}, BY_TOKENS | {"tokens_per_batch": 4096}]
    for size in sizes:
        sampler = row_batches(alpaca_like_lengths(), strategy=strategy, processes=8, accumulation=accumulation, **size)
        assert 1 <= sampler.balance() < 1.1


def test_work_that_cannot_be_even_is_reported() -> None:
    one = {"rows_per_batch": 1, "tokens_per_batch": None, "strategy": "sequential", "processes": 2}
    assert row_batches([3, 1, 2, 2], **one).balance() == (3 + 2) / (2 + 2)


def test_the_fullest_epoch_sets_the_number_of_batches() -> None:
    alone = [len(row_batches(skewed_lengths(500), epochs=1, seed=seed, **BY_TOKENS)) for seed in range(20)]
    assert len(set(alone)) > 1  # orders differ in what they need
    sampler = row_batches(skewed_lengths(500), epochs=30, **BY_TOKENS)
    assert {len(sampler.plan(epoch)) for epoch in range(30)} == {len(sampler)}


@pytest.mark.parametrize("sizes", [BY_ROWS, BY_TOKENS], ids=["rows", "tokens"])
@pytest.mark.parametrize("strategy", ["random", "group_by_length", "group_by_prefix"])
def test_seed_and_epoch_alone_decide(strategy: Strategy, sizes: dict[str, Any]) -> None:
    def plan(seed: int, epoch: int) -> list[list[int]]:
        torch.manual_seed(seed * epoch)  # global generators have no say
        np.random.seed(seed + epoch)
        return row_batches(skewed_lengths(100), strategy=strategy, seed=seed, **sizes).plan(epoch)

    assert plan(7, 1) == plan(7, 1)
    # A sum of seed and epoch would make the first two equal, a product the last two.
    plans = [plan(7, 1), plan(8, 0), plan(6, 2), plan(7, 0), plan(0, 0)]
    assert all(one != other for number, one in enumerate(plans) for other in plans[:number])


def test_rows_of_similar_length_share_a_batch() -> None:
    lengths = skewed_lengths(5000)
    shares = [round(padding_share(row_batches(lengths, strategy=each, **BY_ROWS)), 3) for each in STRATEGIES]
    assert shares == [0.432, 0.04, 0.433]
    by_tokens = row_batches(lengths, strategy="group_by_length", **BY_TOKENS)
    assert round(padding_share(by_tokens), 3) == 0.026


@pytest.mark.parametrize("sizes", [BY_ROWS, BY_TOKENS], ids=["rows", "tokens"])
@pytest.mark.parametrize("processes", [1, 2])
def test_similar_lengths_come_in_any_order_but_the_heaviest_batch_first(sizes: dict[str, Any], processes: int) -> None:
    lengths = skewed_lengths(5000)
    sampler = row_batches(lengths, strategy="group_by_length", processes=processes, **sizes)
    first, second = ([sampler.work(batch) for batch in plan] for plan in (sampler.plan(0), sampler.plan(1)))
    assert max(first[:processes]) == max(first)
    assert max(second[:processes]) < max(second)
    longest = [lengths[batch].max() for batch in sampler.plan(1)]
    rank = np.corrcoef(np.argsort(np.argsort(longest)), np.arange(len(longest)))[0, 1]
    assert abs(rank) < 0.2  # lengths neither fall nor rise within an epoch


def test_processes_get_similar_lengths_at_the_same_step() -> None:
    lengths = skewed_lengths(5000)
    plan = row_batches(lengths, strategy="group_by_length", processes=8, **BY_ROWS).plan(1)
    longest = np.array([lengths[batch].max() for batch in plan]).reshape(-1, 8)
    assert np.median(longest.max(axis=1) / longest.min(axis=1)) < 1.05


def test_dropping_rows_prefers_no_length() -> None:
    sampler = row_batches(skewed_lengths(203), strategy="group_by_length", drop_last=True, processes=8, **BY_ROWS)
    plans = [sampler.plan(epoch) for epoch in range(3)]
    assert [sum(map(len, plan)) for plan in plans] == [192] * 3
    left = [set(range(203)) - {row for batch in plan for row in batch} for plan in plans]
    assert left[0] != left[1] != left[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            BY_TOKENS | {"tokens_per_batch": 90},
            "90 is too small for the longest training row; raise it to 100 at least",
        ),
        (BY_TOKENS | {"drop_last": True}, "dataloader_drop_last: true has no effect with tokens_per_batch"),
        (BY_ROWS | {"drop_last": True, "processes": 3}, "would drop all 8 training rows, which do not fill one batch"),
        (BY_ROWS | {"processes": 9}, "8 training rows cannot be shared by 9 processes"),
        (
            BY_TOKENS | {"tokens_per_batch": 100, "processes": 5},
            "8 training rows cannot be shared evenly by 5 processes with tokens_per_batch: 100; they would need 10",
        ),
    ],
)
def test_rows_that_cannot_be_shared_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        row_batches([100, 90, 80, 70, 60, 90, 80, 70], **changes)


def loader(sampler: RowBatches) -> Any:
    rows = list(range(len(sampler.lengths)))
    plain: DataLoader[Any] = DataLoader(rows, batch_sampler=sampler, collate_fn=list)  # type: ignore[arg-type]
    return prepare_data_loader(plain, device=torch.device("cpu"), num_processes=1, process_index=0, put_on_device=True)


@pytest.mark.parametrize("sizes", [BY_ROWS, BY_TOKENS], ids=["rows", "tokens"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_resumed_epoch_has_exactly_the_remaining_batches(strategy: Strategy, sizes: dict[str, Any]) -> None:
    whole = loader(row_batches(skewed_lengths(100), strategy=strategy, **sizes))
    epochs = []
    for epoch in range(3):
        whole.set_epoch(epoch)
        epochs.append(list(whole))

    sampler = row_batches(skewed_lengths(100), strategy=strategy, **sizes)
    resumed = loader(sampler)
    skipping = skip_first_batches(resumed, 5)
    skipping.set_epoch(1)
    assert sampler.epoch == 0  # accelerate does not look inside what skips, so the sampler must be told
    sampler.set_epoch(1)
    assert list(skipping) == epochs[1][5:]
    resumed.set_epoch(2)
    assert list(resumed) == epochs[2]


def test_relatives_are_neighbours_and_families_come_in_random_order() -> None:
    for processes in (1, 4):
        sampler = row_batches(
            [9] * 60, strategy="group_by_prefix", processes=processes, rows_per_batch=6, tokens_per_batch=None
        )
        for epoch in (0, 1):
            plan = sampler.plan(epoch)
            assert all(len({row // 3 for row in batch}) == len(batch) // 3 for batch in plan)
            assert sorted(row for batch in plan for row in batch) == list(range(60))
        assert sampler.plan(0) != sampler.plan(1)


def test_families_are_rows_of_which_one_prompt_begins_the_others() -> None:
    prompts = [[5, 6], [5, 7], [5, 6, 1, 2], [5, 7], [5, 6, 1, 3], [300], [5]]
    found = families(prompts[:6]).tolist()
    assert found[0] == found[2] == found[4] and found[1] == found[3] and len(set(found)) == 3
    assert len(set(families(prompts))) == 2  # the last begins all but one
    assert len(set(families([[], [], [1]]))) == 3
