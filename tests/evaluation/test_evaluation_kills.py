"""kill -9 at any file that eval_responses.py opens, renames or removes: files are old or new, never half."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from faults.harness import Forks, wait
from world.small_world import ROOT, gpt2, save_model
from world.stub_judge import serve as serve_judge

FEW, MANY = 4, 20
CHANGES = ("open", "os.rename", "os.remove")
KEPT_AS_THEY_COME = ("responses.partial.jsonl", "responses_base.partial.jsonl", "judge_cache.jsonl")
"""Whose last line may be torn."""


def evaluate(arguments: Sequence[str], folder: Path, kill_at: int, counted: Path) -> None:
    """In a forked process: the script, killed before the `kill_at`th change of a file in `folder`."""
    import eval_responses
    from heed.errors import exit_code

    os.chdir(ROOT)
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    changes = 0

    def hook(event: str, given: tuple[Any, ...]) -> None:
        nonlocal changes
        if event not in CHANGES or not str(given[0]).startswith(str(folder)):
            return
        if event == "open" and not given[2] & (os.O_WRONLY | os.O_RDWR):
            return
        changes += 1
        if changes == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    sys.argv = ["eval_responses.py"]
    code = exit_code(lambda: eval_responses.main(arguments))
    counted.write_text(str(changes))
    sys.exit(code)


def left(folder: Path) -> dict[str, Any]:
    """What the files say, times aside. Raises for half a file."""
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        text = path.read_text()
        if path.suffix == ".json":
            found[path.name] = without_times(json.loads(text))
        elif path.suffix == ".jsonl":
            lines = text.splitlines()
            if path.name in KEPT_AS_THEY_COME and lines and not text.endswith("\n"):
                lines.pop()
            found[path.name] = sorted((without_times(json.loads(line)) for line in lines), key=str)
        elif path.suffix == ".html":
            assert text.rstrip().endswith("</html>")
    return found


TIMES = {
    "seconds",
    "time",
    "responses_sha256",
    "controls_sha256",
    "cached",
    "requests",
    "prompt_tokens",
    "completion_tokens",
}


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_times(each) for name, each in value.items() if name not in TIMES}
    return [without_times(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("points", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_a_killed_evaluation_leaves_old_or_new_files_and_the_same_command_finishes(
    tmp_path: Path, forks: Forks, points: int
) -> None:
    models = [save_model(tmp_path / name, gpt2(n_layer=layers)) for name, layers in (("base", 1), ("tuned", 2))]
    rows = [{"instruction": f"Say {word}.", "input": "", "output": f"{word}!"} for word in "abcdef"]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    words = ["--model_name_or_path", str(models[1]), "--compare_with", str(models[0]), "--prompt", "alpaca_short"]
    words += ["--data", str(tmp_path / "rows.json"), "--max_new_tokens", "3", "--metrics", "exact_match,token_f1"]
    words += ["--judge_backend", "openai", "--judge_model", "stub", "--judge_control_rows", "1"]
    counted = tmp_path / "counted"

    def run(folder: Path, *more: str, kill_at: int = 0) -> int | None:
        arguments = [*words, "--output_dir", str(folder), *more]
        return wait([forks.start(evaluate, arguments, folder, kill_at, counted)])[0]

    with serve_judge(lambda body: '{"reasoning": "as asked", "score": 50}') as stub:
        words += ["--judge_base_url", stub.url]
        earlier, whole = tmp_path / "earlier", tmp_path / "whole"
        assert run(earlier, "--limit", "2") == 0
        shutil.copytree(earlier, whole)
        assert run(whole) == 0
        changes = int(counted.read_text())
        old, new = left(earlier), left(whole)
        for number in range(points):
            kill_at = 1 + number * (changes - 1) // (points - 1)
            folder = tmp_path / f"killed-{kill_at}"
            shutil.copytree(earlier, folder)
            assert run(folder, kill_at=kill_at) == -signal.SIGKILL
            found = left(folder)
            for name in ("responses.json", "responses_base.json", "evaluation.json", "items.jsonl", "comparison.json"):
                assert name not in found or found[name] in (old[name], new[name]), (name, kill_at)
            assert run(folder) == 0
            assert left(folder) == new, kill_at
