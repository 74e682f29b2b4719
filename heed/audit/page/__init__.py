"""The rows of a source as a page to look through: coloured tokens, flags, where each row comes from, lengths."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from heed.audit.findings import Audit
from heed.audit.row import FLAGS
from heed.audit.scan import Scan
from heed.data.records import Record, Rejected
from heed.data.splits import SPLITS, UNUSED
from heed.pages import render_page, write_page
from heed.prompts.template import Prompt
from heed.tokens.batches import FlatCollator, PaddingCollator
from heed.tokens.encoding import Policy, encode_row
from heed.tokens.order import RowBatches, Strategy
from heed.tokens.preview import CUTS, places_in_loss, token_texts

FOLDER = Path(__file__).parent
ROWS_SHOWN = 2000
TOKENS_SHOWN = 600_000  # more make a page that takes seconds to open
BINS = 24
CHART_WIDTH, CHART_HEIGHT = 360, 110


@dataclass(frozen=True, kw_only=True)
class Padding:
    """What a batch of the run contains besides its rows."""

    chosen: str
    padded_waste: float
    """Share of a padded batch that is padding, in the run's own order of rows."""
    batches: int


def choose_rows(scan: Scan) -> list[int]:
    """Positions of the rows to show, in their order: some of every flag, the rarest first, then other rows.

    At most ROWS_SHOWN rows and about TOKENS_SHOWN tokens.
    """
    tokens = scan.rows["tokens"]
    rarest_first = sorted((scan.flagged(name) for name in FLAGS), key=len)
    share = max(1, ROWS_SHOWN // (2 * len(FLAGS)))
    unflagged = np.flatnonzero(scan.rows["flags"] == 0)
    wanted = [*(rows[:share] for rows in rarest_first), *rarest_first, unflagged]
    chosen: dict[int, None] = {}
    used = 0
    for position in np.concatenate([rows[:ROWS_SHOWN] for rows in wanted]).tolist():
        if position in chosen:
            continue
        if len(chosen) == ROWS_SHOWN or (chosen and used + tokens[position] > TOKENS_SHOWN):
            break
        chosen[position] = None
        used += int(tokens[position])
    return sorted(chosen)


def write_inspector(
    path: Path,
    *,
    rows: Iterable[Record | Rejected],
    audit: Audit,
    prompt: Prompt,
    policy: Policy,
    collator: FlatCollator | PaddingCollator,
    padding: Padding,
    source: str,
) -> int:
    """Write the page and return how many rows it shows; `rows` are read once more from the beginning."""
    scan = audit.scan
    chosen = set(choose_rows(scan))
    shown = []
    records = (row for row in rows if isinstance(row, Record))
    for position, record in enumerate(records):
        if position in chosen:
            shown.append(page_row(record, position, scan, prompt, policy, collator))
            if len(shown) == len(chosen):
                break
    used = scan.rows[scan.rows["split"] != UNUSED]
    tokens, responses = used["tokens"].astype(np.int64), used["response_tokens"].astype(np.int64)
    html = render_page(
        FOLDER / "page.jinja",
        styles=[FOLDER / "style.css"],
        scripts=[FOLDER / "page.js"],
        data={"rows": shown, "flags": list(FLAGS), "splits": list(SPLITS)},
        source=source,
        total=len(scan.rows),
        shown=len(shown),
        tokens=audit.tokens,
        findings=[finding for finding in audit.findings if finding.count],
        absent=[finding.name for finding in audit.findings if not finding.count],
        charts=[
            chart("prompt", tokens - responses),
            chart("response", responses),
            chart("both", tokens),
        ],
        width=CHART_WIDTH,
        height=CHART_HEIGHT,
        max_length=policy.max_length,
        padding=padding,
    )
    write_page(path, html)
    return len(shown)


def measure_padding(
    scan: Scan,
    *,
    batching: str,
    rows_per_batch: int | None,
    tokens_per_batch: int | None,
    strategy: str,
    seed: int,
    max_length: int | None,
) -> Padding:
    """Deal the training rows out as the first epoch will, and count what padding to the longest of a batch adds."""
    train = scan.rows[scan.rows["split"] == 0]
    lengths = np.minimum(train["tokens"].astype(np.int64), max_length or train["tokens"].max(initial=1))
    if tokens_per_batch is not None:
        tokens_per_batch = max(tokens_per_batch, int(lengths.max(initial=1)))
    batches = RowBatches(
        lengths,
        rows_per_batch=rows_per_batch,
        tokens_per_batch=tokens_per_batch,
        # Who is related to whom is not known here, and says nothing about lengths.
        strategy=cast(Strategy, "random" if strategy == "group_by_prefix" else strategy),
        seed=seed,
        epochs=1,
    ).plan(0)
    room = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    return Padding(chosen=batching, padded_waste=1 - int(lengths.sum()) / room, batches=len(batches))


def page_row(
    record: Record, position: int, scan: Scan, prompt: Prompt, policy: Policy, collator: FlatCollator | PaddingCollator
) -> dict[str, Any]:
    """A row as the page's script wants it."""
    like, flags = int(scan.rows["like"][position]), scan.flags(position)
    return {
        "id": record.row_id,
        "place": record.place,
        "split": int(scan.rows["split"][position]),
        "flags": [FLAGS.index(name) for name in flags],
        "like": scan.place(like) if like >= 0 else "",
        "otherwise": scan.place(scan.other_answer(position)) if "conflicting_answers" in flags else "",
        "examples": [page_example(example, prompt, collator) for example in encode_row(record, prompt, policy)],
    }


def page_example(example: dict[str, Any], prompt: Prompt, collator: FlatCollator | PaddingCollator) -> dict[str, Any]:
    """Tokens, and a letter for each: l learned, r only read, in the order of the model."""
    batch = collator([example])
    ids = batch["input_ids"][0].tolist()
    left_out = example["outcome"] == "too_long"
    learned = set() if left_out else set(places_in_loss(batch))
    return {
        "tokens": token_texts(prompt.tokenizer, ids),
        "labels": "".join("l" if place in learned else "r" for place in range(len(ids))),
        "spans": example["spans"],
        "eos": [place for place, token in enumerate(ids) if token == prompt.eos_token_id],
        "outcome": example["outcome"],
        "cut": CUTS.get(example["outcome"], ""),
    }


def chart(name: str, lengths: np.ndarray) -> dict[str, Any]:
    """A histogram as bars of an SVG: widths are of equal ratio where lengths differ much, of equal size where not."""
    low, high = int(lengths.min()), int(lengths.max())
    logarithmic = high > 20 * max(1, low)
    if logarithmic:
        edges = np.unique(np.geomspace(max(1, low), high + 1, BINS + 1).astype(np.int64))
    else:
        edges = np.unique(np.linspace(low, high + 1, min(BINS, high - low + 1) + 1).astype(np.int64))
    counts, _ = np.histogram(lengths, bins=edges)
    width, most = CHART_WIDTH / len(counts), max(1, int(counts.max()))
    bars = [
        {
            "x": round(number * width, 1),
            "width": round(max(1.0, width - 1), 1),
            "height": round(max(1.0, count / most * CHART_HEIGHT), 1) if count else 0,
            "label": f"{edges[number]:,} to {edges[number + 1] - 1:,} tokens: {count:,} rows",
        }
        for number, count in enumerate(counts.tolist())
    ]
    marks = {f"{share:.0%}": math.ceil(np.quantile(lengths, share)) for share in (0.5, 0.95)}
    return {
        "name": name,
        "logarithmic": logarithmic,
        "bars": bars,
        "low": low,
        "high": high,
        "median": marks["50%"],
        "most": marks["95%"],
    }
