"""A job whose machine is taken away loses nothing: what it has left on the bucket is enough to continue."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from faults.harness import write_config
from heed import __version__
from heed.files.hashes import file_sha256
from jobs import train
from world.small_world import ROOT


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def kept_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_lasts_is_copied_once_and_an_older_checkpoint_goes_after_a_newer_one_has_come(tmp_path: Path) -> None:
    run, kept, copied = tmp_path / "run", tmp_path / "kept", dict[Path, int]()
    for name in ("checkpoint-2/weights", "metrics.jsonl", ".incomplete/weights", "run.json.1.part"):
        write(run / name, "one")
    train.keep(run, kept, copied)
    assert kept_files(kept) == ["checkpoint-2/weights", "metrics.jsonl"]

    write(kept / "checkpoint-2" / "weights", "as it was copied")
    write(run / "checkpoint-4" / "weights", "two")
    train.keep(run, kept, copied)
    assert (kept / "checkpoint-2" / "weights").read_text() == "as it was copied"
    shutil.rmtree(run / "checkpoint-2")
    train.keep(run, kept, copied)
    assert kept_files(kept) == ["checkpoint-4/weights", "metrics.jsonl"]
    assert not (kept / "checkpoint-2").exists()


def test_a_file_that_goes_while_it_is_copied_takes_nothing_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, kept, copied = tmp_path / "run", tmp_path / "kept", dict[Path, int]()
    write(run / "checkpoint-2" / "weights", "one")
    train.keep(run, kept, copied)
    listed = train.lasting

    def and_then_it_goes_on(folder: Path) -> list[Path]:
        found = listed(folder)
        if folder == run:  # the training finishes a checkpoint and deletes the one that was just seen
            write(run / "checkpoint-4" / "weights", "two")
            shutil.rmtree(run / "checkpoint-2")
        return found

    monkeypatch.setattr(train, "lasting", and_then_it_goes_on)
    train.keep(run, kept, copied)
    assert kept_files(kept) == ["checkpoint-2/weights"]


def test_a_disk_that_is_still_there_is_not_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "kept" / "run.json", "older")
    write(tmp_path / "run" / "run.json", "newer")
    assert train.take_back(tmp_path / "kept", tmp_path / "run") == {}
    assert (tmp_path / "run" / "run.json").read_text() == "newer"


def test_the_header_installs_this_version_and_the_yaml_trains() -> None:
    header = re.search(r"# /// script\n(.*?)# ///", (ROOT / "jobs" / "train.py").read_text(), re.S)
    assert header is not None
    told = tomllib.loads(re.sub(r"^# ?", "", header[1], flags=re.M))
    assert told["dependencies"] == [f"heed @ file:///code/heed-{__version__}-py3-none-any.whl"]
    task = yaml.safe_load((ROOT / "jobs" / "sky.yaml").read_text())
    assert "-m jobs.train /kept/" in task["run"] and "/kept" in task["file_mounts"]


@pytest.mark.slow
def test_a_job_that_is_killed_with_its_disk_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    program = "import sys; from jobs import train; train.SECONDS = 0.02; train.main(sys.argv[1:])"

    def start(name: str, machine: str) -> "subprocess.Popen[str]":
        (tmp_path / machine).mkdir()
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        words = [sys.executable, "-c", program, str(tmp_path / "bucket" / name), "--config", str(config)]
        return subprocess.Popen(
            words, cwd=tmp_path / machine, env=environment, text=True, stdout=subprocess.PIPE, start_new_session=True
        )

    assert start("whole", "calm").communicate(timeout=300)
    first = start("cut", "first")
    while not (tmp_path / "bucket" / "cut" / "checkpoint-4" / "MANIFEST.json").is_file():
        assert first.poll() is None
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    shutil.rmtree(tmp_path / "first")
    said, _ = start("cut", "second").communicate(timeout=300)
    assert "resume    from" in said
    weights = [tmp_path / "bucket" / name / "model.safetensors" for name in ("cut", "whole")]
    assert file_sha256(weights[0]) == file_sha256(weights[1])
