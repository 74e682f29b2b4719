"""A training of seconds in this process, to be interrupted and resumed."""

import json
import shutil
from pathlib import Path

import train_sft
from heed.errors import exit_code
from heed.files import run_folder


def run(config: Path, *arguments: str) -> int:
    """`python train_sft.py --config CONFIG ...` into the folder `run` beside the config; the exit code."""
    output_dir = str(config.parent / "run")
    return exit_code(lambda: train_sft.main(["--config", str(config), "--output_dir", output_dir, *arguments]))


def interrupt(config: Path) -> None:
    """Leave what a kill after the checkpoint of step 4 leaves."""
    assert run(config, "--max_steps", "5") == 0
    folder = config.parent / "run"
    shutil.rmtree(folder / "checkpoint-5")
    record = folder / run_folder.RUN_FILE
    run_folder.write_json(record, json.loads(record.read_text()) | {"status": "running"})


def copied(config: Path, folder: Path) -> tuple[Path, Path]:
    """Config and newest checkpoint of a copy of an interrupted run."""
    shutil.copytree(config.parent / "run", folder / "run")
    shutil.copy(config, folder / "run.yaml")
    return folder / "run.yaml", folder / "run" / "checkpoint-4"
