import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from heed.errors import UserError, is_out_of_memory
from heed.models import memory
from heed.models.memory import BatchSize, cgroups, free_in_cgroup, free_memory, rows_that_fit

HUGE = 2**50  # bytes that no machine has


def doubled(most: int, tried: list[int], error: Callable[[], Exception]) -> Callable[[Sequence[int]], torch.Tensor]:
    """A function of rows that runs out of memory above `most` of them, and notes how many it was given."""

    def function(rows: Sequence[int]) -> torch.Tensor:
        tried.append(len(rows))
        if len(rows) > most:
            raise error()
        return 2 * torch.tensor(rows)

    return function


def size(rows: int, said: list[str]) -> BatchSize:
    return BatchSize(rows, key="batch_size", relief="lower max_length", say=said.append)


ERRORS = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    lambda: MemoryError(),
    lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    lambda: RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
]


@pytest.mark.parametrize("error", ERRORS)
def test_batches_are_halved_until_they_fit_and_stay_small(error: Callable[[], Exception]) -> None:
    said: list[str] = []
    tried: list[int] = []
    rows = size(8, said)
    function = doubled(3, tried, error)
    made = list(rows.batches(range(7), function))
    assert torch.cat([result for _, result in made]).tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert [list(batch) for batch, _ in made] == [[0, 1, 2], [3, 4, 5], [6]]
    assert tried == [7, 3, 3, 1]
    assert said == ["not enough memory for 7 rows at once; continuing with 3 (batch_size: 3 starts there)"]
    # The next list begins with what is known to fit.
    assert torch.cat([result for _, result in rows.batches([9, 8, 7, 6], function)]).tolist() == [18, 16, 14, 12]
    assert tried[4:] == [3, 1] and len(said) == 1


def test_every_halving_is_reported() -> None:
    said: list[str] = []
    list(size(16, said).batches(range(20), doubled(2, [], MemoryError)))
    assert [text.split(";")[0] for text in said] == [
        "not enough memory for 16 rows at once",
        "not enough memory for 8 rows at once",
        "not enough memory for 4 rows at once",
    ]


def test_a_row_that_does_not_fit_alone_ends_with_the_way_out() -> None:
    said: list[str] = []
    with pytest.raises(UserError, match="not enough memory for a single row; lower max_length") as caught:
        list(size(2, said).batches([1, 2], doubled(0, [], MemoryError)))
    assert caught.value.__context__ is None  # it would keep the failed attempt's tensors
    assert len(said) == 1


def test_other_errors_are_not_caught() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        list(size(2, []).batches([1, 2], doubled(0, [], lambda: RuntimeError("shapes cannot be multiplied"))))


def test_a_failed_attempt_keeps_nothing_when_the_next_begins() -> None:
    class Activations:
        """Refers to itself, so that only the garbage collector frees it."""

        def __init__(self) -> None:
            self.graph = self

    left: list[weakref.ref[Activations]] = []

    def function(rows: Sequence[int]) -> int:
        assert all(each() is None for each in left)
        activations = Activations()
        left.append(weakref.ref(activations))
        if len(rows) > 1:
            raise MemoryError
        return len(rows)

    assert [result for _, result in size(4, []).batches([1], function)] == [1]
    left.clear()
    made = size(4, []).batches([1, 2, 3, 4], function)
    assert next(made) == ([1], 1)
    assert len(left) == 3


def test_torchs_error_for_lack_of_memory_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(HUGE)
    assert is_out_of_memory(caught.value)


def test_rows_take_half_of_the_free_memory_but_one_is_always_tried() -> None:
    assert rows_that_fit(1000, 50, 64) == 10
    assert rows_that_fit(1000, 5, 64) == 64
    assert rows_that_fit(1000, 900, 64) == 1


def test_free_memory_of_this_machine_is_some_bytes() -> None:
    assert 2**20 < free_memory(torch.device("cpu")) < HUGE


@pytest.mark.parametrize(
    ("group", "folder", "files"),
    [
        ("0::/job/step", "job/step", ("memory.max", "memory.current", "inactive_file")),
        (
            "3:cpu:/\n4:memory:/job/step",
            "memory/job/step",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
        ("0::/another/name", "", ("memory.max", "memory.current", "inactive_file")),  # a container sees its own as root
    ],
)
def test_the_limit_of_a_control_group_counts(
    tmp_path: Path, group: str, folder: str, files: tuple[str, str, str]
) -> None:
    own = tmp_path / "cgroup"
    own.write_text(group + "\n")
    limited = tmp_path / "sys" / folder
    limited.mkdir(parents=True)
    limit, used, droppable = files
    (limited / limit).write_text("1000\n")
    (limited / used).write_text("700\n")
    (limited / "memory.stat").write_text(f"anon 600\n{droppable} 100\n")
    assert cgroups(tmp_path / "sys", own) == [limited]
    assert free_in_cgroup(limited) == 400


def test_a_control_group_without_a_limit_takes_nothing_away(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    assert free_in_cgroup(tmp_path) > 2**20
    assert cgroups(tmp_path, tmp_path / "not-linux") == []


def test_kept_memory_goes_back_when_a_training_has_grown_by_half(monkeypatch: pytest.MonkeyPatch) -> None:
    class Libc:
        trims = 0

        def mallopt(self, parameter: int, value: int) -> int:
            return 1

        def malloc_trim(self, pad: int) -> None:
            self.trims += 1

    libc, held = Libc(), iter([50, 100, 90, 100, 100, 120, 149, 151, 100])
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: libc)
    monkeypatch.setattr(memory, "resident_memory", lambda: next(held))
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    kept, trims = memory.KeptMemory(), []
    for _ in range(9):
        kept.on_step_end(None, None, None)
        trims.append(libc.trims)
    assert trims == [0, 0, 0, 0, 0, 0, 0, 1, 1]  # five steps say what is usual: 100, so 150 is the limit
    monkeypatch.setattr(memory, "free_memory", lambda device: 60)
    monkeypatch.setattr(memory, "resident_memory", lambda: 100)
    scarce = memory.KeptMemory()
    scarce.on_step_end(None, None, None)
    assert scarce.limit == 130  # never more than half of what is free


def test_without_glibc_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError("no such library")

    monkeypatch.setattr(memory.ctypes, "CDLL", absent)
    kept = memory.KeptMemory()
    kept.on_step_end(None, None, None)
    assert not kept.kept and kept.steps == 0
