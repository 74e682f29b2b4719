"""What a metric found on a set of answers: a value with its interval, and a number for each answer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from heed import __version__
from heed.errors import UserError
from heed.files import run_folder
from heed.measure.intervals import SHARE, Range, limits_for
from heed.measure.rows import Row

HEED = f"heed {__version__}"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One metric. `value` is None when it covers no answer; the notes then say why."""

    metric: str
    value: float | None
    n: int
    """Answers that the value covers."""
    items: tuple[float | None, ...] | None
    """A number for each answer, in their order; None where the metric says nothing of one, or knows only the whole."""
    ci95: tuple[float, float] | None = None
    """What a metric finds has none yet: the same numbers have other intervals where rows are drawn together."""
    library: str = HEED
    better: str = "higher"
    """higher, lower, or neither: a description."""
    scale: float = 1.0
    """The distance from the worst value to the best: 1, or 100 as its library counts."""
    within: Range = SHARE
    """What an item can be."""
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    statistics: np.ndarray | None = field(default=None, repr=False, compare=False)
    """Of a score that is not a mean of its items: the counts of each answer that it is made of."""


def mean_measurement(
    metric: str,
    items: Sequence[float | None],
    *,
    within: Range = SHARE,
    notes: tuple[str, ...] = (),
    **rest: Any,
) -> Measurement:
    """The mean over the items that have a number; its interval comes later, when it is known what is drawn together."""
    known = np.array([item for item in items if item is not None], dtype=float)
    rest |= {"metric": metric, "items": tuple(items), "within": within, "n": len(known)}
    if not len(known):
        return Measurement(value=None, notes=(*notes, "it has no value for any of these answers"), **rest)
    if limits_for(known, within, len(known)) is None:
        notes = (*notes, f"{len(known)} values are too few, or too much alike, for an interval")
    return Measurement(value=float(known.mean()), notes=notes, **rest)


def library(package: str) -> str:
    return f"{package} {metadata.version(package)}"


def as_rows(measurements: Iterable[Measurement], **provenance: Any) -> list[Row]:
    """Rows for rows.jsonl; `provenance` has the fields of Row that a measurement does not know."""
    return [
        Row(
            metric=each.metric,
            value=each.value,
            ci95=each.ci95,
            n=each.n,
            library=each.library,
            higher_is_better=each.better != "lower",
            notes=each.notes,
            details={"better": each.better, "scale": each.scale, **each.details},
            **provenance,
        )
        for each in measurements
    ]


# ---- items.jsonl


@dataclass(frozen=True, kw_only=True)
class RowNumbers:
    """All numbers of one model's answer to one row; a metric that says nothing of it is absent."""

    name: str
    row_id: int
    metrics: dict[str, float]


def make_items(name: str, row_ids: Sequence[int], measurements: Sequence[Measurement]) -> list[RowNumbers]:
    """`name` is the model's part in the comparison: base, other, tuned or model."""
    by_metric = {each.metric: each.items for each in measurements if each.items is not None}
    assert all(len(items) == len(row_ids) for items in by_metric.values())
    return [
        RowNumbers(
            name=name,
            row_id=row_id,
            metrics={metric: value for metric, items in by_metric.items() if (value := items[position]) is not None},
        )
        for position, row_id in enumerate(row_ids)
    ]


def write_items(folder: Path, items: Sequence[RowNumbers]) -> None:
    """Put the items into the folder's items.jsonl, in place of all earlier ones with their names."""
    names = {item.name for item in items}
    kept = [item for item in read_items(folder) if item.name not in names]
    run_folder.write_lines(
        folder / run_folder.ITEMS_FILE,
        [{"name": item.name, "row_id": item.row_id, "metrics": item.metrics} for item in (*kept, *items)],
    )


def read_items(folder: Path) -> list[RowNumbers]:
    """Raises UserError for a line that is not one."""
    path = folder / run_folder.ITEMS_FILE
    items = []
    for number, line in enumerate(run_folder.read_lines(path), 1):
        try:
            items.append(RowNumbers(**line))
        except TypeError as error:
            raise UserError(f"{path}:{number}: not an item of this version of Heed ({error})") from error
    return items
