"""Which training rows are wrong: how each row's loss went over the epochs of a run (Swayamdipta et al. 2020).

A row that the model keeps getting wrong while it learns the others most often has a wrong answer.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from markupsafe import Markup

from heed import __version__
from heed.audit import duplicates
from heed.data.records import Record, normalized
from heed.errors import UserError
from heed.files import run_folder
from heed.pages import render_page, write_page
from heed.report.figures import Series, scatter
from heed.runs.recorder import recorded_steps, spoken
from heed.saying import count
from heed.tokens.preview import one_line

Kind = Literal["learned", "never learned", "forgotten again"]
KINDS: tuple[Kind, ...] = ("learned", "never learned", "forgotten again")
LOOKS: Mapping[Kind, str] = {"learned": "n0", "never learned": "n1", "forgotten again": "n3"}
MOST_TWINS = 3
ROWS_SHOWN, ROWS_ON_PAGE = 20, 500
FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class MappedRow:
    """A training row with its loss in each epoch, before the step that learned from it."""

    record: Record
    losses: list[float]
    kind: Kind
    twins: tuple[Record, ...] = ()
    """Rows that ask nearly the same and answer otherwise."""

    @property
    def mean(self) -> float:
        return sum(self.losses) / len(self.losses)

    @property
    def spread(self) -> float:
        """The standard deviation over epochs; 0 for one."""
        return float(np.std(self.losses))


def row_map(run: Path, records: Sequence[Record]) -> list[MappedRow]:
    """The rows of a run, the highest mean loss first. `records` are those that it learned from.

    Raises UserError for a run that did not record the losses of rows.
    """
    losses = row_losses(run)
    bar = float(np.mean([each[0] for each in losses.values()]))
    found = [
        MappedRow(record=record, losses=losses[record.row_id], kind=kind_of(losses[record.row_id], bar))
        for record in records
        if record.row_id in losses
    ]
    found.sort(key=lambda row: -row.mean)
    return found


def row_losses(run: Path) -> dict[int, list[float]]:
    """Row id -> its loss each time the run learned from it. Turns of a conversation count by their learned tokens."""
    steps = recorded_steps(run)
    if not steps or steps[0].losses is None:
        raise UserError(f"{run}: the losses of its rows were not recorded; train with record_row_loss: true")
    found: dict[int, list[float]] = {}
    for step in steps:
        sums: dict[int, list[float]] = {}
        for row, tokens, loss in zip(step.rows, step.supervised, step.losses or (), strict=True):
            total = sums.setdefault(row, [0.0, 0.0])
            total[0] += loss * tokens
            total[1] += tokens
        for row, (nats, learned) in sums.items():
            if learned and math.isfinite(nats):
                found.setdefault(row, []).append(nats / learned)
    return found


def kind_of(losses: Sequence[float], bar: float) -> Kind:
    """A row is learned in an epoch where its loss is below `bar`, the mean of all rows in the first epoch."""
    if losses[-1] < bar:
        return "learned"
    return "forgotten again" if min(losses) < bar else "never learned"


def with_twins(rows: Sequence[MappedRow], records: Sequence[Record]) -> list[MappedRow]:
    """The rows with those of `records` that ask nearly the same (sharing four fifths of all five-letter sequences) and
    answer otherwise."""
    texts = [normalized(record.question) for record in records]
    signatures = np.stack([duplicates.signature(duplicates.runs(text)) for text in texts])
    place_of = {record.row_id: place for place, record in enumerate(records)}

    def twins(row: MappedRow) -> Iterator[Record]:
        place = place_of[row.record.row_id]
        mine = duplicates.runs(texts[place])
        likely = (signatures == signatures[place]).mean(axis=1) >= duplicates.LIKELY
        for other in np.flatnonzero(likely).tolist():
            alike = duplicates.similarity(mine, duplicates.runs(texts[other])) >= duplicates.SIMILAR
            if alike and records[other].output != row.record.output:
                yield records[other]

    return [replace(row, twins=tuple(islice(twins(row), MOST_TWINS))) for row in rows]


def suspects(rows: Sequence[MappedRow], records: Sequence[Record]) -> list[MappedRow]:
    """The rows that were not learned in the end, with their twins."""
    found = [row for row in rows if row.kind != "learned"]
    return with_twins(found, records) if found else []


def as_json(row: MappedRow) -> dict[str, Any]:
    return {
        "row_id": row.record.row_id,
        "place": row.record.place,
        "kind": row.kind,
        "mean_loss": round(row.mean, 4),
        "spread": round(row.spread, 4),
        "losses": [round(loss, 4) for loss in row.losses],
        "answered_otherwise": [twin.place for twin in row.twins],
    }


def map_text(rows: Sequence[MappedRow], listed: Sequence[MappedRow]) -> str:
    """How many rows are of which kind, and the ones that were not learned, the highest loss first."""
    epochs = max(len(row.losses) for row in rows)
    counts = Counter(row.kind for row in rows)
    kinds = ", ".join(f"{counts[kind]:,} {kind}" for kind in KINDS if counts[kind])
    lines = [f"{count(len(rows), 'training row')} over {count(epochs, 'epoch')}: {kinds}"]
    if epochs == 1:
        lines.append("one epoch tells hard rows from easy ones; what was forgotten shows from the second on")
    for row in listed[:ROWS_SHOWN]:
        losses = " ".join(f"{loss:.2f}" for loss in row.losses)
        lines.append(f"\n{row.record.place}  {row.kind}, loss {losses}")
        lines += [f"  {message['role']:<9} {one_line(spoken(message))}" for message in row.record.messages]
        lines += [f"  but {twin.place}: {one_line(twin.question)} -> {one_line(twin.output)}" for twin in row.twins]
    if len(listed) > ROWS_SHOWN:
        lines.append(f"\nand {len(listed) - ROWS_SHOWN:,} more")
    return "\n".join(lines)


def write_map(run: Path, rows: Sequence[MappedRow], listed: Sequence[MappedRow]) -> Path:
    """map.html, and suspects.jsonl, whose lines `inspect_data.py --export` can leave out."""
    run_folder.write_lines(run / run_folder.SUSPECTS_FILE, map(as_json, listed))
    html = render_page(
        FOLDER / "map.jinja",
        styles=[FOLDER.parent / "report" / "style.css", FOLDER / "style.css"],
        title=f"Rows of {run.name}",
        cloud=cloud(rows),
        counts=Counter(row.kind for row in rows),
        looks=LOOKS,
        listed=[(row, as_json(row)) for row in listed[:ROWS_ON_PAGE]],
        left=max(0, len(listed) - ROWS_ON_PAGE),
        suspects_file=run / run_folder.SUSPECTS_FILE,
        count=count,
        version=__version__,
        now=run_folder.now(),
    )
    path = run / run_folder.MAP_PAGE
    write_page(path, html)
    return path


def cloud(rows: Sequence[MappedRow]) -> Markup:
    """Each row by the spread of its loss (across) and its mean (up), those of each kind in its colour."""
    series = [
        Series(name=kind, points=[(row.spread, row.mean) for row in rows if row.kind == kind], look=look)
        for kind, look in LOOKS.items()
    ]
    highest = max(row.mean for row in rows)
    label = f"{count(len(rows), 'row')} by spread and mean of the loss; the highest mean is {highest:.2f}"
    return scatter(series, x_title="spread of the loss over epochs", y_high=highest, label=label)
