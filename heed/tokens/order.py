"""Which rows make which micro-batch: a function of (seed, epoch) alone, so that resuming changes nothing.

The rows of an optimizer step are drawn first and then dealt to its micro-batches, so that all are the same work: the
gradient is a sum over the step's rows, whoever computes which of them.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from datasets import Dataset
from torch.utils.data import Sampler

from heed.errors import UserError
from heed.tokens.examples import prompt_of, row_lengths
from heed.tokens.tree import families

if TYPE_CHECKING:
    from transformers import TrainingArguments

Strategy = Literal["random", "group_by_length", "group_by_prefix", "sequential"]
BLOCK = 50  # optimizer steps whose rows are sorted together under group_by_length, as transformers does


def row_batches(
    args: "TrainingArguments", dataset: Dataset, tokens_per_batch: int | None, *, padded: bool, even: bool = False
) -> "RowBatches":
    """The micro-batches of this process as a run's arguments ask for them: by rows or by tokens.

    `padded` batches are filled up to their longest row; in others rows are laid end to end.
    """
    lengths, strategy = row_lengths(dataset), cast(Strategy, str(args.train_sampling_strategy))
    if padded and strategy == "group_by_prefix":
        raise UserError(
            "train_sampling_strategy: group_by_prefix saves nothing where rows are padded; set batching: flat"
        )
    epochs = math.ceil(args.num_train_epochs)
    if args.max_steps > 0 and tokens_per_batch is not None:
        # At least as many epochs as will begin: each has at least as many micro-batches as its tokens fill.
        micro_batches = args.max_steps * args.gradient_accumulation_steps * args.world_size
        epochs = math.ceil(micro_batches / math.ceil(lengths.sum() / tokens_per_batch))
    return RowBatches(
        lengths,
        rows_per_batch=args.train_batch_size if tokens_per_batch is None else None,
        tokens_per_batch=tokens_per_batch,
        padded=padded,
        strategy=strategy,
        families=families(map(prompt_of, dataset)) if strategy == "group_by_prefix" else None,
        seed=args.data_seed if args.data_seed is not None else args.seed,
        epochs=epochs,
        processes=args.world_size,
        process_index=args.process_index,
        accumulation=args.gradient_accumulation_steps,
        drop_last=args.dataloader_drop_last,
        even=even,
    )


class RowBatches(Sampler[list[int]]):
    """One process's micro-batches, for DataLoader(batch_sampler=...): the same number in every epoch and process.

    Every row is in one micro-batch of an epoch, over all processes together (under `drop_last` the last rows are in
    none). Trainer counts the micro-batches once, so an epoch with more or fewer would lose rows or starve a process.
    Hand it to accelerate as it is, with num_processes=1: it has already shared out the rows.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        *,
        rows_per_batch: int | None,
        tokens_per_batch: int | None,
        strategy: Strategy,
        seed: int,
        epochs: int,
        families: np.ndarray | None = None,
        padded: bool = False,
        processes: int = 1,
        process_index: int = 0,
        accumulation: int = 1,
        drop_last: bool = False,
        even: bool = False,
    ) -> None:
        """`lengths` are tokens per row; one of the two sizes is given. Raises UserError for rows that cannot be shared.

        `even` gives every micro-batch `rows_per_batch` rows, and leaves out what does not fill a step.

        Under group_by_prefix the rows of each of the `families` are neighbours, and families come in random order.

        `rows_per_batch` is a mean: where a step has several micro-batches, long rows go with fewer others.

        An optimizer step takes `accumulation` micro-batches from each process. Which rows it learns from depends on
        their total, not on how they fall to processes: half the processes with twice the accumulation make the same
        run. (Where an epoch ends with fewer rows than there are processes, its last two steps differ.)
        `epochs` is how many may run: with `tokens_per_batch` the fullest of them sets the number of micro-batches.
        """
        assert (rows_per_batch is None) != (tokens_per_batch is None)
        assert (families is not None) == (strategy == "group_by_prefix")
        self.families = families
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.rows_per_batch, self.tokens_per_batch = rows_per_batch, tokens_per_batch
        self.strategy, self.seed, self.padded = strategy, seed, padded
        self.drop_last, self.even = drop_last or even, even
        self.processes, self.process_index = processes, process_index
        self.parts = processes * accumulation  # micro-batches in an optimizer step
        self.epoch = 0
        self._planned: tuple[int, list[list[int]]] = (-1, [])
        self._check()
        self.count = self._count(epochs)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch."""
        return -(-self.count // self.parts)

    def rows_of_step(self, step: int) -> list[list[int]]:
        """The micro-batches of an optimizer step, those of all processes; steps count from 1."""
        epoch, place = divmod(step - 1, self.steps)
        return self.plan(epoch)[place * self.parts : (place + 1) * self.parts]

    def __len__(self) -> int:
        return self.count // self.processes

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.plan(self.epoch)[self.process_index :: self.processes])

    def plan(self, epoch: int) -> list[list[int]]:
        """All micro-batches of an epoch; the i-th belongs to process i % processes."""
        if self._planned[0] != epoch:
            self._planned = (epoch, self._plan(epoch))
        return self._planned[1]

    def _plan(self, epoch: int) -> list[list[int]]:
        generator = self._generator(epoch)
        rows = self._rows(generator)
        if self.tokens_per_batch is not None:
            batches = np.split(rows, cuts_by_tokens(self.lengths[rows], self.tokens_per_batch, self.count))
        else:
            batches = self._cut_by_rows(rows)
        assert len(batches) == self.count, f"epoch {epoch} was not planned for"
        dealt = [self._deal(batches[start : start + self.parts]) for start in range(0, self.count, self.parts)]
        batches = [batch for step in dealt for batch in step]
        if self.strategy == "group_by_length":
            # Whole steps, so that no process waits for a longer batch; the last one stays last if it is not full.
            rows_per_step = (self.rows_per_batch or 0) * self.parts
            full = len(rows) // rows_per_step if rows_per_step else self.count // self.parts
            steps = generator.permutation(full).tolist()
            if epoch == 0 and steps:  # running out of memory shows at the first step
                heaviest = int(np.argmax([self._weight(step) for step in dealt[:full]]))
                steps.remove(heaviest)
                steps.insert(0, heaviest)
            order = [step * self.parts + index for step in steps for index in range(self.parts)]
            batches = [batches[number] for number in order + list(range(len(order), len(batches)))]
        return [batch.tolist() for batch in batches]

    def work(self, batch: Sequence[int] | np.ndarray) -> int:
        """The tokens that are computed for a micro-batch, padding included."""
        lengths = self.lengths[batch]
        return int(lengths.max()) * len(lengths) if self.padded else int(lengths.sum())

    def balance(self) -> float:
        """How much longer the first epoch takes than if each process had the same work in every step."""
        if self.processes == 1:
            return 1.0
        work = np.array([self.work(batch) for batch in self.plan(0)]).reshape(-1, self.processes)
        each = np.add.reduceat(work, np.arange(0, len(work), self.parts // self.processes))
        return float(each.max(axis=1).sum() / each.mean(axis=1).sum())

    def _deal(self, batches: list[np.ndarray]) -> list[np.ndarray]:
        """The rows of one step in as many batches, none of them more work than the heaviest was before."""
        if len(batches) == 1 or self.families is not None or self.even:  # by length, relatives would be separated again
            return batches
        rows = np.concatenate(batches)
        rows = rows[np.argsort(-self.lengths[rows], kind="stable")]
        dealt = (even_rectangles if self.padded else even_sums)(self.lengths[rows], len(batches))
        found = sorted((rows[places] for places in dealt), key=self.work, reverse=True)
        return found if self.work(found[0]) < max(map(self.work, batches)) else batches

    def _weight(self, step: Sequence[np.ndarray]) -> int:
        """What says which step needs the most memory; by rows it does not depend on how they are dealt."""
        if self.tokens_per_batch is not None:
            return max(map(self.work, step))
        lengths = self.lengths[np.concatenate(step)]
        return int(lengths.max() if self.padded else lengths.sum())

    def _generator(self, epoch: int) -> np.random.RandomState:
        """SeedSequence hashes the pair, so that seed + 1 is not the same run one epoch later, as with a sum.

        RandomState, because numpy keeps what it draws the same in all versions (NEP 19); Generator may change.
        """
        return np.random.RandomState(np.random.MT19937(np.random.SeedSequence([self.seed, epoch])))

    def _rows(self, generator: np.random.RandomState) -> np.ndarray:
        """The rows of an epoch in the order in which they are cut into batches."""
        count = len(self.lengths)
        rows = np.arange(count) if self.strategy == "sequential" else generator.permutation(count)
        if self.drop_last and self.rows_per_batch is not None:  # before sorting: dropping must not prefer a length
            rows = rows[: count - count % (self.rows_per_batch * (self.parts if self.even else self.processes))]
        if self.families is not None:
            _, first, family = np.unique(self.families[rows], return_index=True, return_inverse=True)
            return rows[np.argsort(first[family], kind="stable")]
        if self.strategy != "group_by_length":
            return rows
        per_batch = self.rows_per_batch or max(1, int((self.tokens_per_batch or 0) // self.lengths.mean()))
        per_step = per_batch * self.parts
        # At least four blocks, as transformers does, or a small set would have the same batches in every epoch.
        return sorted_in_blocks(rows, self.lengths, per_step * max(1, min(BLOCK, len(rows) // (4 * per_step))))

    def _cut_by_rows(self, rows: np.ndarray) -> list[np.ndarray]:
        """Full batches; what is left for the last group of processes is spread evenly over it.

        Where fewer rows are left than processes, the group before shares them. With one row a batch there is nothing
        to share, so the shortest rows of the last group go in pairs.
        """
        size, processes = self.rows_per_batch or 1, self.processes
        groups, left = divmod(len(rows), size * processes)
        if 0 < left < processes:
            groups -= 1
        full, last = np.split(rows, [groups * size * processes])
        batches = list(full.reshape(-1, size))
        if len(last):
            if size == 1:  # the first parts of a split are the larger ones
                last = last[np.argsort(self.lengths[last], kind="stable")]
            last_groups = min(-(-len(last) // (size * processes)), len(last) // processes)
            batches += np.array_split(last, last_groups * processes)
        return batches

    def _count(self, epochs: int) -> int:
        """The number of micro-batches of any epoch, over all processes."""
        if self.tokens_per_batch is None:
            return len(self._cut_by_rows(self._rows(self._generator(0))))
        most = 0
        for epoch in range(1 if self.strategy == "sequential" else epochs):
            lengths = self.lengths[self._rows(self._generator(epoch))]
            most = max(most, len(next_fit(cumulated(lengths), self.tokens_per_batch)))
        count = -(-most // self.parts) * self.parts
        if count > len(self.lengths):  # too few rows for a whole number of steps
            count = -(-most // self.processes) * self.processes
        if count > len(self.lengths):
            raise UserError(
                f"{len(self.lengths)} training rows cannot be shared evenly by {self.processes} processes with "
                f"tokens_per_batch: {self.tokens_per_batch}; they would need {count} rows; "
                "raise tokens_per_batch or take fewer processes"
            )
        return count

    def _check(self) -> None:
        rows = len(self.lengths)
        if rows < self.processes:
            raise UserError(
                f"{rows} training rows cannot be shared by {self.processes} processes; take fewer processes"
            )
        if self.even and rows < (step := (self.rows_per_batch or 1) * self.parts):
            raise UserError(
                f"{rows} training rows do not fill one step of {step}; lower per_device_train_batch_size, "
                "gradient_accumulation_steps or global_batch_size"
            )
        if self.rows_per_batch is not None:
            if self.drop_last and rows < self.rows_per_batch * self.processes:
                raise UserError(
                    f"dataloader_drop_last: true would drop all {rows} training rows, which do not fill one batch of "
                    f"{self.rows_per_batch} rows on {self.processes} processes; set it to false or take smaller batches"
                )
            return
        if self.drop_last:
            raise UserError(
                "dataloader_drop_last: true has no effect with tokens_per_batch, where no batch is incomplete; "
                "leave it out"
            )
        longest = int(self.lengths.max())
        if longest > (self.tokens_per_batch or 0):
            raise UserError(
                f"tokens_per_batch: {self.tokens_per_batch} is too small for the longest training row; raise it to "
                f"{longest} at least, or lower max_length and say with on_long_row what happens to longer rows"
            )


def sorted_in_blocks(rows: np.ndarray, lengths: np.ndarray, block: int) -> np.ndarray:
    """`rows` with neighbours of similar length: each block sorted, every other one upwards, so that borders fit too."""
    blocks = np.arange(len(rows)) // block
    keys = np.where(blocks % 2 == 1, lengths[rows], -lengths[rows])
    return rows[np.lexsort((keys, blocks))]


def even_sums(lengths: np.ndarray, count: int) -> list[list[int]]:
    """Places of falling `lengths` in `count` parts of about equal sums: each goes to the part with least so far."""
    parts: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, part) for part in range(count)]
    for place, length in enumerate(lengths.tolist()):
        load, part = heappop(loads)
        parts[part].append(place)
        heappush(loads, (load + length, part))
    return parts


def even_rectangles(lengths: np.ndarray, count: int) -> list[list[int]]:
    """Places of falling `lengths` in `count` parts of neighbours, the largest (rows x longest) as small as possible."""

    def starts(limit: int) -> list[int]:
        found = [0]
        while (after := found[-1] + max(1, limit // int(lengths[found[-1]]))) < len(lengths):
            found.append(after)
        return found

    limits = range(int(lengths[0]), int(lengths[0]) * len(lengths) + 1)
    found = starts(limits[bisect_left(limits, -count, key=lambda limit: -len(starts(limit)))])
    while len(found) < count:  # fewer parts would do, but everyone needs one
        ends = [*found[1:], len(lengths)]
        _, start, end = max((int(lengths[a]) * (b - a), a, b) for a, b in zip(found, ends, strict=True) if b - a > 1)
        found = sorted([*found, (start + end) // 2])
    return [list(range(start, end)) for start, end in zip(found, [*found[1:], len(lengths)], strict=True)]


def cuts_by_tokens(lengths: np.ndarray, budget: int, count: int) -> list[int]:
    """Where to cut rows of `lengths` into `count` batches of at most `budget` tokens.

    Next-fit makes fewer batches or as many; the largest ones are then halved until there are `count`.
    """
    sums = cumulated(lengths)
    ends = next_fit(sums, budget)
    starts = [0, *ends[:-1]]
    largest = [
        (sums[start] - sums[end], start, end) for start, end in zip(starts, ends, strict=True) if end > start + 1
    ]
    heapify(largest)
    while len(ends) < count:
        _, start, end = heappop(largest)
        half = (sums[start] + sums[end]) / 2
        middle = min(range(start + 1, end), key=lambda cut: abs(sums[cut] - half))
        ends.append(middle)
        for part in ((start, middle), (middle, end)):
            if part[1] > part[0] + 1:
                heappush(largest, (sums[part[0]] - sums[part[1]], *part))
    return sorted(ends)[:-1]


def cumulated(lengths: np.ndarray) -> list[int]:
    """The tokens before each row, and those of all rows at the end."""
    return [0, *np.cumsum(lengths).tolist()]


def next_fit(sums: Sequence[int], budget: int) -> list[int]:
    """Where each batch ends when a batch takes row after row as long as they fit into `budget`."""
    ends: list[int] = []
    start, rows = 0, len(sums) - 1
    while start < rows:
        start = bisect_right(sums, sums[start] + budget, start) - 1
        ends.append(start)
    return ends
