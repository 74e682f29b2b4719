"""The rows of a finished run, read again."""

import json
import shutil
from pathlib import Path

from heed.runs.finished import set_aside


def test_the_rows_are_those_that_the_run_wrote_down_however_rows_would_be_split_now(
    stopped: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped.parent / "run", run)
    splits = json.loads((run / "splits.json").read_text())
    told = json.loads((run / "resolved_config.json").read_text())
    # Not how the run split them, and not how these rows can be split.
    for told["split"]["value"], told["split_shares"]["value"] in (("hash", [0.4, 0.3, 0.3]), ("source", [])):
        (run / "resolved_config.json").write_text(json.dumps(told))
        for name in ("train", "validation"):
            assert sorted(record.row_id for record in set_aside(run, name)) == sorted(splits[name])
