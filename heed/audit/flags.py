"""What the audit found on single rows, kept in the run folder, so that scores can leave such rows out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heed.files import run_folder
from heed.files.hashes import file_sha256

if TYPE_CHECKING:  # heavy, and not needed to read flags
    from heed.audit.scan import Scan

FLAGS_FILE = "row_flags.json"


def write_flags(folder: Path, scan: "Scan") -> None:
    """Write the flags of every flagged row by its id, and those of the evaluation files that were compared."""
    flagged = np.flatnonzero(scan.rows["flags"])
    rows = {str(scan.rows["row_id"][position]): list(scan.flags(int(position))) for position in flagged}
    against = {
        name: {"sha256": facts["sha256"], "rows": {row_id: ["contaminated"] for row_id in facts["known"]}}
        for name, facts in scan.against.items()
    }
    run_folder.write_json(folder / FLAGS_FILE, {"rows": rows, "against": against})


def read_flags(folder: Path, data: str | None = None) -> dict[int, tuple[str, ...]]:
    """Row id -> flags, for rows that have any: of the run's own rows, or of the evaluation file `data`.

    An evaluation file is known by its bytes, whatever its name. Empty for a run that was not audited, or was not
    compared with that file; `was_compared` tells these from a clean one.
    """
    entry = find(folder, data)
    return {int(row_id): tuple(flags) for row_id, flags in entry["rows"].items()} if entry else {}


def was_compared(folder: Path, data: str | None = None) -> bool:
    """Whether the audit of that run looked at these rows at all."""
    return find(folder, data) is not None


def find(folder: Path, data: str | None) -> dict[str, Any] | None:
    path = folder / FLAGS_FILE
    if not path.is_file():
        return None
    flags: dict[str, Any] = run_folder.read_json(path)
    if data is None:
        return flags
    sha256 = file_sha256(Path(data))
    return next((entry for entry in flags["against"].values() if entry["sha256"] == sha256), None)
