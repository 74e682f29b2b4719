"""docs/files.md names what a run really leaves."""

import json
import re
from pathlib import Path

from heed.files import run_folder
from world.small_world import ROOT

PAGE = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([^`]+)`", PAGE))


def test_every_name_of_a_file_is_on_the_page() -> None:
    names = {value for name, value in vars(run_folder).items() if name.endswith(("_FILE", "_PLOT"))}
    assert names <= NAMED


def test_every_field_of_a_runs_files_is_on_the_page(stopped: Path) -> None:
    folder = stopped.parent / "run"
    for name in (run_folder.RUN_FILE, run_folder.STATE_FILE, "prompt_contract.json"):
        assert set(json.loads((folder / name).read_text())) <= NAMED, name
    for name in (run_folder.FLIGHT_FILE, run_folder.SAMPLES_FILE):
        for line in (folder / name).read_text().splitlines() if (folder / name).is_file() else ():
            assert set(json.loads(line)) <= NAMED, name
