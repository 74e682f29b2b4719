"""The checked rows of a large source, kept in the datasets cache: the same bytes are read and checked once."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heed import __version__
from heed.data.records import Record
from heed.data.rows import Rows
from heed.files import run_folder
from heed.files.hashes import json_sha256

if TYPE_CHECKING:
    from heed.data.sources import Source

VERSION = 2  # of what is kept; a change of how rows are read and checked is another one
MANY = 10_000  # rows; fewer are read in no time
KEPT = (*(each.name for each in fields(Record)), "content_hash", "question_hash")


def kept_file(source: "Source", files: Mapping[str, str]) -> Path:
    """Known by the hash of the files' bytes and of how they are read."""
    from datasets import config  # heavy, and wherever training reads rows there already

    key = json_sha256([VERSION, __version__, asdict(source), files])
    return Path(config.HF_DATASETS_CACHE) / "heed" / f"rows-{key}.json"


def kept_rows(path: Path) -> Rows | None:
    """A damaged file counts as none."""
    try:
        kept = json.loads(path.read_bytes())
        return Rows(records=as_records(kept.pop("records")), rejected=[], **kept)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep_rows(path: Path, rows: Rows) -> None:
    """Nothing of a source with bad rows, or a small one."""
    if rows.rejected or len(rows.records) < MANY:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"row_format": rows.row_format, "understood": rows.understood, "ignored_fields": rows.ignored_fields}
    records = {name: [getattr(record, name) for record in rows.records] for name in KEPT}
    with run_folder.whole_file(path) as file:
        file.write(json.dumps(kept | {"records": records}))


def as_records(columns: dict[str, list[Any]]) -> list[Record]:
    """With the hashes that are otherwise computed when they are asked for."""
    columns |= {
        "messages": [tuple(turns) for turns in columns["messages"]],
        "unused": [tuple(map(tuple, unused)) for unused in columns["unused"]],
    }
    records = []
    for values in zip(*(columns[name] for name in KEPT), strict=True):
        record = object.__new__(Record)
        vars(record).update(zip(KEPT, values, strict=True))
        records.append(record)
    return records
