"""A benchmark as a question to a loaded model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heed.benchmarks.asking import Asking, Outcome
from heed.benchmarks.loaded import Loaded
from heed.benchmarks.suite import Benchmark
from heed.data.records import Record, rows_sha256

if TYPE_CHECKING:  # needs lm_eval
    from heed.benchmarks.tasks import Tasks


@dataclass(frozen=True, kw_only=True)
class Question:
    """A benchmark, and how it is asked."""

    benchmark: Benchmark
    variant: str
    """The folder below the model's name that keeps what comes of it."""
    key: dict[str, Any]
    """All that a number depends on besides the model and its contract."""
    library: str
    ask: Callable[[Loaded, dict[str, Any], Path], Outcome]
    """Given the model, the whole key and the folder."""
    tasks: "Tasks | None" = None
    """lm_eval's, which know how items are summed up; without them every metric is a plain mean of its items."""


def graded_key(
    asking: Asking, records: Sequence[Record], *, max_new_tokens: int, data: str, library: str, judge: Any = None
) -> dict[str, Any]:
    """What the grade of free answers depends on besides the model that gives them."""
    return {
        "max_new_tokens": max_new_tokens,
        "data_sha256": rows_sha256(records),
        "data": data,
        "chat_template": True,
        "limit": asking.limit,
        "library": library,
        "judge": judge,
    }
