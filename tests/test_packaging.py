"""Heed as a package: what it needs agrees with what it is tested with, and its commands find what they read."""

import csv
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from heed import shipped
from heed.commands import let_threads_sleep
from heed.shipped import COMMANDS
from world.small_world import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NEEDED = {"": PROJECT["project"]["dependencies"]} | PROJECT["project"]["optional-dependencies"]
INCLUDED = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]


@pytest.mark.parametrize("extra", NEEDED)
def test_what_is_needed_is_what_is_tested(extra: str) -> None:
    ranges = {each.name: each for each in map(Requirement, NEEDED[extra])}
    file = ROOT / f"requirements{'-' * bool(extra)}{extra}.txt"
    lines = [line.partition("#")[0].strip() for line in file.read_text().splitlines()]
    pins = {each.name: each for each in map(Requirement, filter(None, lines))}
    assert ranges.keys() == pins.keys()
    for name, pin in pins.items():
        versions = [each.version for each in pin.specifier if each.operator == "=="]
        assert pin.extras == ranges[name].extras
        assert all(version in ranges[name].specifier for version in versions), name
        assert versions or pin.specifier == ranges[name].specifier, name


def test_every_script_is_a_command_and_in_the_package() -> None:
    scripts = {path.stem for path in ROOT.glob("*.py")}
    assert set(COMMANDS.values()) == scripts
    assert PROJECT["project"]["scripts"] == dict.fromkeys(COMMANDS, "heed.commands:main")
    assert {Path(name).stem for name in INCLUDED if name.endswith(".py")} == scripts
    assert {*shipped.FOLDERS, "prompts"} == {name for name in INCLUDED if not name.endswith(".py")}
    assert all(there == f"heed/share/{name}" for name, there in INCLUDED.items())


@pytest.mark.parametrize(
    ("own", "then"),
    [
        ({}, {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "3000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_how_threads_wait_is_the_users_own_if_they_say(
    own: dict[str, str], then: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(own))
    let_threads_sleep()
    assert os.environ == then


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder with Heed as pip lays it."""
    folder = tmp_path / "packages"
    shutil.copytree(ROOT / "heed", folder / "heed", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "heed" / "share").mkdir()
    for name, there in INCLUDED.items():
        (folder / there).symlink_to(ROOT / name)
    return folder


def type_in(packages: Path, folder: Path, command: str, *words: str) -> str:
    """What a command prints that is typed in a folder where nothing of Heed is."""
    program = f"import sys; from heed.commands import main; sys.argv[0] = 'bin/{command}'; main()"
    environment = os.environ | {"PYTHONPATH": str(packages), "HF_HOME": str(folder / "cache")}
    words = (sys.executable, "-c", program, *words)
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_command_finds_a_shipped_config_from_anywhere(packages: Path, tmp_path: Path) -> None:
    said = type_in(packages, tmp_path, "heed-eval", "--config", "configs/eval.yaml", "--explain")
    assert f"{packages}/heed/share/configs/eval.yaml:2" in said


def test_messages_say_what_can_be_typed_there(packages: Path, tmp_path: Path) -> None:
    program = "from heed.shipped import command, setup; print(command('train_sft'), setup('gguf'), sep='; ')"
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, cwd=tmp_path, env={"PYTHONPATH": str(packages)}, capture_output=True, text=True)
    assert done.stdout == "heed-train; pip install 'heed[gguf]'\n"
    assert [shipped.command("train_sft"), shipped.setup("gguf")] == ["python train_sft.py", "make setup-gguf"]


@pytest.mark.slow
def test_a_command_trains_the_shipped_model_from_anywhere(packages: Path, tmp_path: Path) -> None:
    with (tmp_path / "my_rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("question", "answer"), *((f"What is {n}?", f"It is {n}.") for n in range(40))])
    words = ("--config", "configs/csv.yaml", "--data", "my_rows.csv", "--output_dir", "runs/mine")
    type_in(packages, tmp_path, "heed-train", *words, "--num_train_epochs", "1")
    assert (tmp_path / "runs" / "mine" / "report.html").is_file()


def test_what_is_shipped_is_found_by_its_name_where_nothing_else_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped.find("models/tiny-gpt2") == str(ROOT / "models" / "tiny-gpt2")
    assert [shipped.find(path) for path in ("models/none", "runs", "", "openai-community/gpt2", "docs")] == [
        "models/none",
        "runs",
        "",
        "openai-community/gpt2",
        "docs",
    ]
    (tmp_path / "models" / "tiny-gpt2").mkdir(parents=True)
    assert shipped.find("models/tiny-gpt2") == "models/tiny-gpt2"
