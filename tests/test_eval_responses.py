"""The evaluation script as a user runs it, on a run of the training script."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_world import gpt2, save_model

import eval_responses
import train_sft
from heed.decoding import Batch
from heed.errors import exit_code

ROWS = [{"instruction": f"Say {word}.", "input": "", "output": f"{word}!"} for word in "abcdefghijklmnopqrst"]
QUIET = ["--use_cpu", "--disable_tqdm", "--sample_max_new_tokens", "0"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, trained once for all tests of this file."""
    folder = tmp_path_factory.mktemp("finished")
    model = save_model(folder / "base", gpt2())
    data = folder / "rows.json"
    data.write_text(json.dumps(ROWS))
    words = ["--model_name_or_path", str(model), "--data", str(data), "--output_dir", str(folder / "run")]
    words += ["--split_shares", "0.7,0.2,0.1", "--num_train_epochs", "20", "--learning_rate", "1e-2", *QUIET]
    assert exit_code(lambda: train_sft.main(words)) == 0
    return folder / "run"


def run(*arguments: object) -> int:
    return exit_code(lambda: eval_responses.main([str(argument) for argument in arguments]))


def test_the_held_out_rows_are_answered_by_base_and_tuned_model(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--model_name_or_path", finished, "--compare_with_base", "--max_new_tokens", "5") == 0
    out = capsys.readouterr().out
    rows = json.loads((finished / "responses.json").read_text())
    assert [(row["instruction"], row["output"]) for row in rows] == [
        ("Say o.", "o!"),
        ("Say p.", "p!"),
        ("Say q.", "q!"),
        ("Say r.", "r!"),
    ]
    assert list(rows[0])[:4] == ["instruction", "input", "output", "model_response"]
    assert rows[0]["row_id"] == 14 and rows[0]["finish_reason"] in ("stop", "length")
    assert rows[0]["prompt_tokens"] > 20 and 1 <= rows[0]["response_tokens"] <= 5
    assert all(row["model_response"].endswith("!") for row in rows)  # it learned the manner
    base = json.loads((finished / "responses_base.json").read_text())
    assert [row["model_response"] for row in base] != [row["model_response"] for row in rows]
    scores = json.loads((finished / "scores.json").read_text())
    assert list(scores) == ["base", "tuned"] and scores["tuned"]["rows"] == 4
    assert "exact match on 4 test rows" in out and out.count("expected ") == 3
    assert str(finished / "loss.png") in out and str(finished / "responses.json") in out


def test_the_batch_is_sized_to_memory_and_halved_when_that_runs_out(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(*words: object) -> list[str]:
        assert run("--model_name_or_path", finished, "--max_new_tokens", "5", "--output_dir", tmp_path, *words) == 0
        return [row["model_response"] for row in json.loads((tmp_path / "responses.json").read_text())]

    expected = answers("--batch_size", "1")
    assert "rows at once" not in capsys.readouterr().out
    assert answers() == expected
    assert re.search(
        rf"tuned {finished}: 4 rows at once \(one takes up to 0.\d MiB, .* are free\)", capsys.readouterr().out
    )

    most = 3
    monkeypatch.setattr(Batch, "_forward", short_of_memory(lambda: most))
    assert answers() == expected
    halved = "memory does not suffice for 4 rows at once; going on with 2 (batch_size: 2 begins there)"
    assert f"tuned {finished}: {halved}" in capsys.readouterr().out
    most = 0
    assert run("--model_name_or_path", finished, "--output_dir", tmp_path) == 2
    assert "does not suffice for a single row; allow fewer new tokens (max_new_tokens)" in capsys.readouterr().err


def short_of_memory(most: Callable[[], int]) -> Callable[..., torch.Tensor]:
    forward = Batch._forward

    def short(batch: Batch, input_ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(input_ids) > most():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(batch, input_ids, *rest)

    return short


def test_a_checkpoint_and_other_rows_are_answered_too(finished: Path, tmp_path: Path) -> None:
    checkpoint = next(finished.glob("checkpoint-*"))
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"task": "Say z.", "output": "z!"}\n{"task": "Say y.", "output": "y!"}\n')
    out = tmp_path / "answers"
    words = ["--data", rows, "--columns", '{"instruction": "task"}', "--limit", "1", "--output_dir", out]
    assert run("--model_name_or_path", checkpoint, *words) == 0
    [row] = json.loads((out / "responses.json").read_text())
    assert (row["instruction"], row["output"]) == ("Say z.", "z!")


def test_a_model_without_a_contract_is_told_how_it_is_prompted(tmp_path: Path, model_folder: Path) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps(ROWS[:2]))
    words = ["--model_name_or_path", model_folder, "--data", rows, "--output_dir", tmp_path, "--max_new_tokens", "3"]
    assert run(*words) == 2
    assert run(*words, "--prompt", "question") == 0
    assert len(json.loads((tmp_path / "responses.json").read_text())) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "alpaca"], "was trained with alpaca and brings that contract; leave prompt out"),
        (["--data", "nowhere.json", "--output_dir", "x"], "'nowhere.json' is not a file"),
        (["--on_bad_row", "drop"], "on_bad_row is set, but nothing in this run reads it; it works with data"),
        (["--batch_size", "0"], "batch_size: 0 answers nothing; give 1 or more, or leave it out"),
        (["--splitt", "test"], "unknown key 'splitt'; did you mean split?"),
    ],
)
def test_bad_input_ends_with_code_2(
    finished: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run("--model_name_or_path", finished, *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--model_name_or_path", tmp_path / "none") == 2
    assert "could not be loaded (there is no folder of that name here)" in capsys.readouterr().err


def test_a_run_that_did_not_finish_points_to_its_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_text('{"status": "stopped"}')
    (tmp_path / "checkpoint-4").mkdir()
    assert run("--model_name_or_path", tmp_path) == 2
    assert f"status: stopped); give one of its checkpoints ({tmp_path}/checkpoint-4)" in capsys.readouterr().err


def test_changed_data_are_refused_as_held_out_rows(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = finished.parent / "rows.json"
    before = data.read_text()
    data.write_text(json.dumps(ROWS[::-1]))
    try:
        assert run("--model_name_or_path", finished) == 2
    finally:
        data.write_text(before)
    assert "has changed since" in capsys.readouterr().err


def test_a_changed_template_breaks_the_contract(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:

    copy = tmp_path / "copy"
    shutil.copytree(finished, copy, ignore=shutil.ignore_patterns("checkpoint-*"))
    contract = json.loads((copy / "prompt_contract.json").read_text())
    contract["template"] = contract["template"].replace("### Response:", "### Answer:")
    (copy / "prompt_contract.json").write_text(json.dumps(contract))
    assert run("--model_name_or_path", copy) == 2
    assert "is not the one of its prompt contract" in capsys.readouterr().err
    (copy / "chat_template.jinja").write_text(contract["template"])
    assert run("--model_name_or_path", copy) == 2
    assert "the prompt contract does not hold" in capsys.readouterr().err
