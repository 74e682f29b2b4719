"""The script as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import eval_benchmarks
import train_sft
from heed.benchmarks import readiness
from heed.errors import exit_code
from world import hub_mirror
from world.locks import held_by_another
from world.small_world import ROOT, gpt2, save_model
from world.stub_annotator import stub_judge

ROWS = [{"instruction": f"Say {word}.", "input": "", "output": f"{word}!"} for word in "abcdefghijklmnopqrst"]


def run(*arguments: object) -> int:
    return exit_code(lambda: eval_benchmarks.main([str(argument) for argument in arguments]))


def test_help_is_there_at_once_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, eval_benchmarks; eval_benchmarks.main(['--help']); eval_benchmarks.main(['list']);"
        "print(sorted({'torch', 'transformers', 'lm_eval', 'scipy', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n") and "--unsafe_code" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lst"], "'lst' is not one of list, run, execute"),
        (["--tasks", "mmlu"], "model_name_or_path is missing"),
        (["--model_name_or_path", "m", "--tasks", "mmlu", "--limt", "3"], "did you mean limit?"),
    ],
)
def test_a_wrong_command_line_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "more", "message"),
    [
        ("mmlu", [], "mmlu needs data: cais/mmlu in"),
        ("alpaca_method", [], "alpaca_method needs a judge: --judge_model NAME --judge_base_url URL"),
        ("openai_evals", [], "openai_evals needs OpenAI Evals: make evals-setup"),
        ("helm", [], "helm needs HELM: make helm-setup"),
        ("alpaca_method", ["--judge_model", "gpt"], "needs a key for OpenAI: export OPENAI_API_KEY=..."),
        (
            "alpaca_method",
            ["--judge_model", "x", "--judge_base_url", "http://me:word@host/v1"],
            "judge_base_url: leave name and password out; a token is read only from OPENAI_API_KEY",
        ),
    ],
)
def test_what_is_missing_is_named_with_the_command_that_fetches_it(
    tmp_path: Path,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    task: str,
    more: list[str],
    message: str,
) -> None:
    if task in ("mmlu", "alpaca_method"):
        pytest.importorskip("lm_eval", reason="make benchmarks-setup installs lm_eval")
    monkeypatch.setattr(readiness, "EVALS", tmp_path / "no-evals")
    monkeypatch.setattr(readiness, "HELM", tmp_path / "no-helm")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    words = ["--model_name_or_path", model_folder, "--prompt", "alpaca", "--tasks", task, "--data_root", tmp_path]
    assert run(*words, *more) == 2
    assert message in capsys.readouterr().err


def test_a_missing_package_is_named_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run("list") == 0
    assert "needs the package lm_eval: make benchmarks-setup" in capsys.readouterr().out


def test_the_list_says_what_a_first_run_will_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lm_eval", reason="make benchmarks-setup installs lm_eval")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(readiness, "PUNKT", Path("tokenizers") / "absent")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert run("list") == 0
    assert "ready; its first run fetches nltk's punkt_tab (python -m nltk.downloader" in capsys.readouterr().out
    (tmp_path / "nltk_data" / readiness.PUNKT).mkdir(parents=True)
    assert run("list") == 0
    assert "punkt_tab" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder and the base model beside it."""
    folder = tmp_path_factory.mktemp("finished")
    model = save_model(folder / "base", gpt2(n_positions=160))
    data = folder / "rows.json"
    data.write_text(json.dumps(ROWS))
    words = ["--model_name_or_path", str(model), "--data", str(data), "--output_dir", str(folder / "run")]
    words += ["--split_shares", "0.7,0.2,0.1", "--max_steps", "2", "--prompt", "alpaca_short", "--use_cpu"]
    words += ["--disable_tqdm", "--sample_max_new_tokens", "0", "--save_strategy", "no", "--eval_strategy", "no"]
    assert exit_code(lambda: train_sft.main(words)) == 0
    return folder / "run"


def test_base_and_tuned_model_are_asked_and_shown_side_by_side(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lm_eval", reason="make benchmarks-setup installs lm_eval")

    hub_mirror.put_mmlu(tmp_path, ["anatomy"])
    hub_mirror.put_humaneval(tmp_path)
    words = ["--model_name_or_path", finished, "--data_root", tmp_path]
    assert run(*words, "--tasks", "mmlu_anatomy", "--chat_template", "both") == 0
    out = capsys.readouterr().out
    assert "mmlu_anatomy acc  template" in out and "mmlu_anatomy acc  text" in out
    rows = [json.loads(line) for line in (finished / "rows.jsonl").read_text().splitlines()]
    assert [(row["name"], row["chat_template"]) for row in rows] == [
        ("base", True),
        ("base", False),
        ("tuned", True),
        ("tuned", False),
    ]
    assert all((row["system"], row["n"], row["n_full"], row["chance"]) == ("MMLU", 3, 3, 0.25) for row in rows)
    assert "difference_from_base" in rows[2]["details"] and "difference_from_base" not in rows[0]["details"]


def test_programs_are_written_first_and_run_when_asked_for(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lm_eval", reason="make benchmarks-setup installs lm_eval")

    hub_mirror.put_humaneval(tmp_path)
    assert run("execute", "--model_name_or_path", finished, "--unsafe_code", "--without_sandbox") == 2
    assert "contains no programs; write them with" in capsys.readouterr().err
    words = ["--model_name_or_path", finished, "--data_root", tmp_path]
    assert run(*words, "--tasks", "humaneval", "--limit", "1") == 0
    assert "HumanEval: the programs are written, not run." in capsys.readouterr().out
    assert run("execute", "--model_name_or_path", finished) == 2
    assert "refused until you set unsafe_code: true" in capsys.readouterr().err
    assert run("execute", "--model_name_or_path", finished, "--unsafe_code", "--without_sandbox") == 0
    rows = [json.loads(line) for line in (finished / "rows.jsonl").read_text().splitlines()]
    assert [(row["name"], row["metric"], row["value"]) for row in rows if row["system"] == "HumanEval"] == [
        ("base", "pass@1", 0.0),
        ("tuned", "pass@1", 0.0),
    ]
    assert (rows[-1]["n"], rows[-1]["n_full"], rows[-1]["limit"]) == (1, 3, 1)
    assert "with the user's own rights" in rows[-1]["notes"][-1]
    assert run(*words, "--tasks", "humaneval") == 0  # all of it: the try of one program does not take its place
    assert run("execute", "--model_name_or_path", finished, "--unsafe_code", "--without_sandbox") == 0
    rows = [json.loads(line) for line in (finished / "rows.jsonl").read_text().splitlines()]
    programs = [(row["name"], row["n"], row["limit"]) for row in rows if row["system"] == "HumanEval"]
    assert sorted(programs, key=str) == [("base", 1, 1), ("base", 3, None), ("tuned", 1, 1), ("tuned", 3, None)]


def test_a_judge_grades_free_answers_once_and_a_try_of_a_few_is_kept_beside_the_whole(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("alpaca_eval", reason="make benchmarks-setup installs alpaca_eval")

    words: list[object] = ["--model_name_or_path", finished, "--output_dir", tmp_path, "--max_new_tokens", "4"]
    with stub_judge("!") as (url, requests):
        words += ["--tasks", "alpaca_method", "--judge_model", "stub", "--judge_base_url", url]
        assert run(*words, "--limit", "1") == 0
        assert run(*words) == 0
        asked = len(requests)
        assert run(*words) == 0
    assert len(requests) == asked + 1  # whether the judge is there; all else was measured before
    assert capsys.readouterr().out.count(": measured before, ") == 2
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    found = [(row["name"], row["n"], row["n_full"], row["limit"]) for row in rows]
    assert found == [("base", 1, 4, 1), ("tuned", 1, 4, 1), ("base", 4, 4, None), ("tuned", 4, 4, None)]


def test_of_two_benchmarks_in_a_folder_the_second_learns_of_the_first(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval", reason="make benchmarks-setup installs lm_eval")

    hub_mirror.put_mmlu(tmp_path, ["anatomy"])
    monkeypatch.setattr("heed.files.lock.PATIENCE", 0.2)
    words = ["--model_name_or_path", finished, "--data_root", tmp_path, "--tasks", "mmlu_anatomy"]
    with held_by_another(finished) as process:
        assert run(*words) == 2
    assert f"{finished} is in use by process {process} on " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "mmlu_anatomy", "--unsafe_code"], "unsafe_code is set, but nothing in this run reads it"),
        (["--tasks", "mmlu_anatomy", "--judge_model", "x"], "judge_model is set, but nothing in this run reads it"),
        (["--tasks", "mmlu_anatomy", "--limit", "0"], "limit: 0 leaves nothing to ask"),
        (["--tasks", "mmlu_anatomy", "--num_fewshot", "-1"], "num_fewshot: -1 is not a number of examples"),
        pytest.param(
            ["--tasks", "no_such_task"],
            "'no_such_task' is neither a benchmark of Heed nor a task of lm_eval",
            marks=pytest.mark.slow,  # all of lm_eval's task files are read
        ),
        (["execute", "--tasks", "mmlu", "--unsafe_code"], "only humaneval has programs to execute"),
    ],
)
def test_bad_input_ends_with_code_2(
    finished: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lm_eval", reason="make benchmarks-setup installs lm_eval")
    first = arguments[:1] if arguments[0] == "execute" else []
    assert run(*first, "--model_name_or_path", finished, *arguments[len(first) :]) == 2
    assert message in capsys.readouterr().err
