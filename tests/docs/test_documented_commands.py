"""What README.md and docs/guide tell a reader to type is right: read here, and typed in `make test-slow`."""

import ast
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
from transformers import TrainingArguments
from trl import DPOConfig

import compare_runs
from heed.benchmarks.readiness import EVALS
from heed.config import field_types, parse_command_line, read_settings
from heed.config.__main__ import SCRIPTS
from heed.files import run_folder
from heed.shipped import COMMANDS
from world import hub_mirror, loopback_hub, stub_annotator, stub_judge
from world.documented import PAGES, Command, commands, inline_commands, lay, lay_runs
from world.small_world import ROOT
from world.votes import VOTE

FLAGS = ("dry_run", "explain", "column_map", "prepare", "verbose")
WORDS = {
    "eval_responses.py": ["generate", "compare", "score", "judge", "export", "report"],
    "eval_benchmarks.py": ["list", "run", "execute"],
}
SERVES = re.compile(r"python arena\.py --|transformers serve")
ARENA = re.compile(r"python arena\.py --run (\S+)")
SECONDS, SAID = 300, "said.txt"
MADE = ("make demo", "make inspect")  # the other targets install something, or run the tests


def in_docstrings() -> Iterator[Command]:
    for path in sorted(ROOT.glob("*.py")):
        for line in (ast.get_docstring(ast.parse(path.read_text())) or "").replace("\\\n", " ").split("\n"):
            if line.startswith(("    python", "    accelerate")):
                yield Command(place=path.name, text=re.split(r"\s{3,}", line.strip())[0], reason=None)


FOUND = [each for page in PAGES for each in [*commands(page), *inline_commands(page)]]


@pytest.mark.parametrize("command", [*FOUND, *in_docstrings()], ids=lambda command: command.place)
def test_every_documented_command_names_what_there_is(command: Command) -> None:
    assert command.reason != "", f"{command.place}: say why it is not run"
    for words in command.parts:
        match words:
            case ["make", *targets]:
                recipes = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
                assert {word for word in targets if "=" not in word} <= recipes
            case ["python", "-m", module, *_] if module.startswith("heed"):
                assert find_spec(module) is not None
            case [name, *keys] if name in COMMANDS:
                check_script(["python", f"{COMMANDS[name]}.py", *keys])
            case ["python" | "accelerate", *_]:
                check_script(words)


def check_script(words: list[str]) -> None:
    """A script and its keys; of a launcher, that its config is there."""
    named = next((place for place, word in enumerate(words) if word.endswith(".py")), None)
    if named is None:
        return
    script, keys = words[named], words[named + 1 :]
    assert (ROOT / script).is_file()
    for option, value in pairwise(words):
        assert option != "--config_file" or (ROOT / value).is_file()
    if script == "arena.py" and keys[:1] in (["rate"], ["pairs"]):
        script = f"arena.py {keys.pop(0)}"
    elif keys and keys[0] in WORDS.get(script, []):
        keys = keys[1:]
    if script == "compare_runs.py":
        keys = compare_runs.runs_as_key(keys)
    if script not in SCRIPTS:
        return
    line = parse_command_line(keys, flags=FLAGS)
    there = tuple(str(ROOT / path) for path in line.configs if path.startswith("configs/"))
    types = field_types(SCRIPTS[script])
    if script in ("train_sft.py", "inspect_data.py"):
        types = field_types(TrainingArguments) | field_types(SCRIPTS["train_sft.py"]) | types
    elif script == "train_dpo.py":
        types = field_types(DPOConfig) | types
    read_settings(replace(line, configs=there), types)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a run and an adapter have been trained and compared with their base."""
    folder = tmp_path_factory.mktemp("ready")
    lay(folder)
    for name, keys in {"whole": "", "adapter": " --use_peft true"}.items():
        done = type_in(folder, f"python train_sft.py --config configs/tiny.yaml --output_dir runs/{name}{keys}", {})
        assert done == 0, said(folder)
        vote(folder / "runs" / name)
        told = run_folder.read_json(folder / "runs" / name / run_folder.CONFIG_FILE)
        told["hub_model_id"]["value"] = "me/my-model"
        run_folder.write_json(folder / "runs" / name / run_folder.CONFIG_FILE, told)
    return folder / "runs"


def vote(run: Path) -> None:
    """What people leave who have asked questions of their own."""
    asked = [f"Which of {number} and {number + 1} is larger?" for number in range(20)]
    cast = [
        replace(VOTE, row_id=None, prompt=each, prompt_sha256=str(number), responses={"a": "no", "b": f"{number + 1}."})
        for number, each in enumerate(asked)
    ]
    run_folder.write_lines(run / run_folder.VOTES_FILE, [asdict(each) for each in cast])


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A judge, Ollama's address and a Hub, all on the loopback, as the environment names them."""
    hub = tmp_path / "hub"
    hub.mkdir()
    with (
        stub_judge.serve(stub_judge.overlap) as judge,
        stub_annotator.stub_judge("yes") as (url, _),
        loopback_hub.serve(hub) as endpoint,
    ):
        named = loopback_hub.environment(endpoint, tmp_path / "cache") | {"HF_TOKEN": loopback_hub.WRITE_TOKEN}
        yield named | {"OLLAMA_HOST": judge.host, "JUDGE_URL": url}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_can_be_typed_one_after_the_other(
    page: Path, ready: Path, servers: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "heed"
    folder.mkdir()
    lay(folder)
    for command in commands(page):
        if command.reason is not None or (command.text.startswith("make") and command.text not in MADE):
            continue
        lay_runs(folder, ready, command)
        text = on_this_machine(command.text, folder, servers)
        assert type_in(folder, text, servers) == 0, f"{command.place}: {text}\n{said(folder)[-3000:]}"
        if opened := ARENA.match(text):
            vote(folder / opened[1])


def on_this_machine(text: str, folder: Path, variables: dict[str, str]) -> str:
    """The command with benchmarks and judge that are at hand, and without what is not installed."""
    text = text.replace("/tmp/hub", "mirror").replace("http://localhost:11434/v1", variables["JUDGE_URL"])
    if "eval_benchmarks.py --" in text and "--data_root" not in text:
        hub_mirror.whole_mirror(folder / "mirror")
        text += " --data_root mirror"
    if not EVALS.is_dir():
        text = text.replace(",openai_evals", "")
    return text.replace("make ", "make -o .venv/installed ")


def said(folder: Path) -> str:
    return (folder / SAID).read_text()


def type_in(folder: Path, text: str, variables: dict[str, str]) -> int:
    """The exit code of a command typed in a folder, with its output in a file; a server is stopped once it serves."""
    path = os.pathsep.join([f"{folder}/bin", str(Path(sys.executable).parent), os.environ["PATH"]])
    own = {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = ["timeout", str(SECONDS), "bash", "-eco", "pipefail", text]
    with (folder / SAID).open("w") as output:
        process = subprocess.Popen(
            words,
            cwd=folder,
            env=(variables or os.environ) | own,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        while SERVES.search(text) and process.poll() is None:
            time.sleep(0.2)
            if "http://" in said(folder):
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
                return 0
        return process.wait()
