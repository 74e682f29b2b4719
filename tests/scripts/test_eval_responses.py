"""The evaluation script as a user runs it, on a run of the training script."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import eval_responses
import inspect_data
import train_sft
from heed.answers.decoding import Batch
from heed.errors import exit_code
from heed.files import run_folder
from heed.models import loading
from heed.prompts.template import PROMPTS
from heed.report.evidence import read_evidence
from heed.report.missing import missing
from world.locks import held_by_another
from world.small_world import gpt2, save_model
from world.stub_endpoint import completion, serve
from world.stub_judge import serve as serve_judge

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
    words += [
        "--split",
        "position",
        "--split_shares",
        "0.7,0.2,0.1",
        "--num_train_epochs",
        "20",
        "--learning_rate",
        "1e-2",
        *QUIET,
    ]
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
    assert all(row["model_response"].endswith("!") for row in rows)  # it learned the style
    base = json.loads((finished / "responses_base.json").read_text())
    assert [row["model_response"] for row in base] != [row["model_response"] for row in rows]
    assert re.search(r"exact_match +0\.000 \[0\.000, 0\.602\] +\d\.\d{3}", out) and out.count("expected ") == 3
    assert f"report    {finished}/report.html" in out and str(finished / "responses.json") in out


def test_what_was_measured_can_be_traced(finished: Path) -> None:
    assert run("--model_name_or_path", finished, "--compare_with_base", "--max_new_tokens", "5", "--limit", "3") == 0

    evaluation = json.loads((finished / "evaluation.json").read_text())
    assert list(evaluation["systems"]) == ["base", "tuned"]
    facts = ("split", "n", "n_full", "limit", "prompt", "engine", "max_new_tokens")
    assert [evaluation[name] for name in facts] == ["test", 3, 4, 3, "alpaca", "auto", 5]
    rows = [json.loads(line) for line in (finished / "rows.jsonl").read_text().splitlines()]
    exact = next(row for row in rows if row["metric"] == "exact_match" and row["name"] == "tuned")
    assert (exact["system"], exact["n"], exact["n_full"]) == ("metrics", 3, 4)
    assert exact["contract"] == evaluation["contract"] and exact["data_sha256"] == evaluation["data_sha256"]
    assert {row["metric"] for row in rows if row["system"] == "stop"} == {"p_eos", "premature_eos", "cut"}
    assert {row["name"] for row in rows if row["system"] == "comparison"} == {"tuned - base"}
    items = [json.loads(line) for line in (finished / "items.jsonl").read_text().splitlines()]
    assert [(item["name"], item["row_id"]) for item in items] == [
        (n, i) for n in ("base", "tuned") for i in (14, 15, 16)
    ]
    assert set(json.loads((finished / "comparison.json").read_text())["metrics"]) >= {"exact_match", "chrf", "p_eos"}
    assert "Say o." in (finished / "report.html").read_text()


def test_the_parts_can_be_done_one_by_one_and_only_the_first_loads_a_model(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("--output_dir", tmp_path)
    assert run("score", *where) == 2
    assert "has no answers (evaluation.json is missing); run eval_responses.py generate" in capsys.readouterr().err
    assert run("generate", "--model_name_or_path", finished, *where, "--max_new_tokens", "5") == 0
    left = {path.name for path in tmp_path.iterdir()} - {".run.lock"}
    assert left == {"responses.json", "responses_controls.json", "evaluation.json", "stops.jsonl"}

    monkeypatch.setattr(loading, "load_finished", None)
    assert run("score", *where, "--metrics", "exact_match") == 0
    assert run("export", *where) == 0 and run("report", *where) == 0
    exported = json.loads((tmp_path / "alpaca_eval_outputs.json").read_text())
    assert exported[0]["instruction"] == "Say o." and exported[0]["generator"] == str(finished)
    assert run("judge", *where) == 2
    assert "judge_backend is missing (openai, ollama or decision)" in capsys.readouterr().err

    (tmp_path / "responses.json").write_text("[]")
    assert run("score", *where) == 2
    assert "responses.json has changed since it was written down in" in capsys.readouterr().err


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_a_report_misses_is_made_by_the_commands_it_names(
    finished: Path, tmp_path: Path, *, elsewhere: bool
) -> None:
    run_of_ours, folder = tmp_path / "run", tmp_path / ("answers" if elsewhere else "run")
    shutil.copytree(finished, run_of_ours, ignore=shutil.ignore_patterns("checkpoint-*", "*responses*", "evaluation*"))
    words = ("--model_name_or_path", run_of_ours, "--output_dir", folder, "--max_new_tokens", "5")
    assert run("generate", *words, "--limit", "2") == 0
    for name in ("rows.jsonl", "items.jsonl", "comparison.json", "judge.jsonl", "judge_summary.json"):
        (folder / name).unlink(missing_ok=True)
    with serve_judge(lambda body: '{"reasoning": "as asked", "score": 50}') as stub:
        while absent := missing(read_evidence(folder)):
            command = absent[0].command.replace("BACKEND", "openai").replace("JUDGE", "stub")
            script, *words_of_it = shlex.split(command)[1:]
            assert script == "eval_responses.py"
            judge = ["--judge_base_url", stub.url] if "judge" in words_of_it else []
            assert run(*words_of_it, *judge) == 0, command
            assert absent[0] not in missing(read_evidence(folder))


def test_a_judge_reads_the_answers_of_both_models(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--model_name_or_path", finished)
    assert run("generate", *where, "--compare_with_base", "--max_new_tokens", "5") == 0
    with serve_judge(lambda body: '{"reasoning": "as asked", "score": 50}') as stub:
        judge = ("--judge_backend", "openai", "--judge_model", "stub", "--judge_base_url", stub.url)
        assert run("judge", *where, *judge, "--judge_control_rows", "2") == 0

    assert "tuned     50.0 [19.8, 80.2] on 4 rows, 0 failed" in capsys.readouterr().out
    rows = [json.loads(line) for line in (finished / "rows.jsonl").read_text().splitlines()]
    scored = [(row["name"], row["value"]) for row in rows if row["metric"] == "judge_score"]
    assert scored == [("base", 50.0), ("tuned", 50.0)]
    page = (finished / "report.html").read_text()
    assert "failed its controls" in page  # it likes an empty answer as much as the reference

    # New answers remove everything said about the old ones; the judge's replies stay.
    assert run("--model_name_or_path", finished, "--max_new_tokens", "1", "--metrics", "exact_match") == 0
    assert "judge: what was said here was about other answers" in capsys.readouterr().out
    left = {file for file in ("comparison.json", "judge.jsonl", "judge_summary.json") if (finished / file).exists()}
    assert left == set() and (finished / "judge_cache.jsonl").is_file()
    rows = [json.loads(line) for line in (finished / "rows.jsonl").read_text().splitlines()]
    assert {(row["name"], row["system"]) for row in rows} == {
        ("tuned", each) for each in ("metrics", "stop", "controls")
    }
    assert {json.loads(line)["name"] for line in (finished / "stops.jsonl").read_text().splitlines()} == {"tuned"}


def test_a_second_model_answers_with_the_first_ones_prompt(finished: Path, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other", gpt2())
    words = ("--compare_with", other, "--output_dir", tmp_path / "answers", "--max_new_tokens", "3")
    assert run("--model_name_or_path", finished, *words) == 0

    systems = json.loads((tmp_path / "answers" / "evaluation.json").read_text())["systems"]
    assert {name: each["model"] for name, each in systems.items()} == {"other": str(other), "tuned": str(finished)}
    assert systems["other"]["contract"] == systems["tuned"]["contract"]


def test_a_second_model_with_its_own_template_is_asked_in_that_too_and_compared_at_its_best(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, folder = tmp_path / "other", tmp_path / "answers"
    shutil.copytree(finished, other, ignore=shutil.ignore_patterns("checkpoint-*", "*.json?", "run*", "prompt_*"))
    (other / "chat_template.jinja").write_text((PROMPTS / "question.jinja").read_text())
    words = ("--model_name_or_path", finished, "--output_dir", folder, "--max_new_tokens", "5")
    assert run(*words, "--compare_with", other, "--metrics", "token_f1") == 0

    out = capsys.readouterr().out
    systems = json.loads((folder / "evaluation.json").read_text())["systems"]
    own = json.loads((folder / "responses_base_own_template.json").read_text())
    assert sorted(systems) == ["other", "other (own template)", "tuned"] and len(own) == 4
    assert systems["other (own template)"]["contract"] != systems["tuned"]["contract"]
    best = next(iter(systems))
    assert json.loads((folder / "comparison.json").read_text())["a"] == best
    assert re.search(rf"for {re.escape(best)}, (better than|as good as) other", out)
    assert out.count("On the test rows, tuned has Token F1") == 1


def test_answers_of_other_tools_are_measured_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"instruction": f"Say {word}.", "input": "", "output": word} for word in ("one", "two")]
    (tmp_path / "ours.json").write_text(json.dumps([row | {"model_response": row["output"]} for row in rows]))
    (tmp_path / "theirs.json").write_text(json.dumps([row | {"model_response": "one"} for row in rows]))
    files = ("--responses", tmp_path / "ours.json", "--compare_with", tmp_path / "theirs.json")

    assert run(*files) == 2
    assert "output_dir is missing: where are the scores of responses to go?" in capsys.readouterr().err
    assert run(*files, "--output_dir", tmp_path / "out") == 0
    assert re.search(r"exact_match +0\.500 .*1\.000 .*\+0\.500 .* 1 better, 1 equal, 0 worse", capsys.readouterr().out)


def test_a_file_with_two_models_answers_is_read_by_its_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"instruction": f"Say {word}.", "input": "", "output": word, "model a": "one", "model b": word}
        for word in ("one", "two")
    ]
    file, folder = tmp_path / "both.json", tmp_path / "out"
    file.write_text(json.dumps(rows))
    words = ("--responses", file, "--output_dir", folder, "--metrics", "exact_match")

    assert run(*words) == 2
    said = capsys.readouterr().err
    assert "both.json: no row has model_response; they have input, instruction, model a, model b, output" in said
    columns = shlex.split(said)[-1]
    assert (columns, run(*words, "--columns", columns)) == ('{"model_response": "model a"}', 0)
    assert re.search(r"exact_match +0\.500", capsys.readouterr().out)

    both = ("--columns", '{"model_response": "model b"}', "--compare_with", "model a")
    assert run(*words, *both) == 0
    assert re.search(r"exact_match +0\.500 .*1\.000 .* 1 better, 1 equal, 0 worse", capsys.readouterr().out)
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert {name: each["model"] for name, each in evaluation["systems"].items()} == {
        "other": "model a",
        "model": "model b",
    }
    assert run("score", "--output_dir", folder, "--metrics", "token_f1") == 0
    assert run("report", "--output_dir", folder) == 0

    for wrong, message in {
        '{"model_response": "model c"}': "no row of .* has 'model c'; they have input,",
        '{"response": "model a"}': "columns: 'response' is not a field of an answer; map row_id, .*model_response",
    }.items():
        capsys.readouterr()
        assert run(*words, "--columns", wrong) == 2
        assert re.search(message, capsys.readouterr().err)
    assert run(*words, *both[:2], "--compare_with", "model c") == 2
    assert "model c: no such file of answers" in capsys.readouterr().err


def test_what_is_missing_is_made_by_asking_the_same_again(tmp_path: Path) -> None:
    rows = [{"Task": f"Say {word}.", "Solution": word} for word in ("one", "two")]
    (tmp_path / "odd.json").write_text(json.dumps(rows))
    model, folder = save_model(tmp_path / "base", gpt2()), tmp_path / "out"
    columns = ("--columns", '{"instruction": "Task", "output": "Solution"}', "--prompt", "alpaca_short")
    words = ("--data", tmp_path / "odd.json", *columns, "--max_new_tokens", "3", "--limit", "1", "--output_dir", folder)
    assert run("--model_name_or_path", model, *words) == 0

    [command] = {each.command for each in missing(read_evidence(folder)) if each.file == "comparison.json"}
    assert run(*shlex.split(command.replace("OTHER", str(model)))[2:]) == 0
    assert (folder / "comparison.json").is_file()


def test_answers_of_other_tools_are_judged_beside_their_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"instruction": "Say one.", "input": "", "output": "one", "model_response": "one"}
    (tmp_path / "ours.json").write_text(json.dumps([row]))
    words = ("--responses", tmp_path / "ours.json", "--output_dir", tmp_path / "out")
    assert run("score", *words, "--metrics", "exact_match") == 0
    with serve_judge(lambda body: '{"reasoning": "as asked", "score": 50}') as stub:
        judge = ("--judge_backend", "openai", "--judge_model", "stub", "--judge_base_url", stub.url)
        assert run("judge", *words, *judge) == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert {"exact_match", "judge_score"} <= {each["metric"] for each in rows}
    assert run("compare", *words) == 2
    assert "compare_with is missing: name the file of answers" in capsys.readouterr().err


def test_of_two_evaluations_of_a_folder_the_second_learns_of_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"instruction": "Say one.", "input": "", "output": "one", "model_response": "one"}
    (tmp_path / "ours.json").write_text(json.dumps([row]))
    monkeypatch.setattr("heed.files.lock.PATIENCE", 0.2)
    with held_by_another(tmp_path) as process:
        assert run("--responses", tmp_path / "ours.json", "--output_dir", tmp_path) == 2
    assert f"{tmp_path} is in use by process {process} on " in capsys.readouterr().err
    assert not (tmp_path / "evaluation.json").exists()
    assert run("--responses", tmp_path / "ours.json", "--output_dir", tmp_path) == 0


def test_a_server_answers_in_place_of_the_model(finished: Path, tmp_path: Path) -> None:
    with serve(lambda body: completion("o!", usage=None)) as stub:
        words = ("--engine", "endpoint", "--base_url", stub.url, "--endpoint_model", "served", "--limit", "2")
        assert run("--model_name_or_path", finished, *words, "--output_dir", tmp_path) == 0

    assert [body["model"] for body in stub.bodies] == ["served"] * 10  # 2 rows, and their 4 controls each
    rows = json.loads((tmp_path / "responses.json").read_text())
    assert [(row["model_response"], row["prompt_tokens"]) for row in rows] == [("o!", None)] * 2
    assert json.loads((tmp_path / "evaluation.json").read_text())["engine"] == "endpoint"


def test_an_interrupted_evaluation_continues_where_it_stopped(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--model_name_or_path", finished, "--output_dir", tmp_path, "--max_new_tokens", "5", "--compare_with_base")
    write_json = run_folder.write_json

    def power_cut(path: Path, value: Any) -> None:
        if path.name == "responses.json":  # the base model's answers are whole by then
            raise KeyboardInterrupt
        write_json(path, value)

    monkeypatch.setattr(run_folder, "write_json", power_cut)
    assert run("generate", *words) == 130
    monkeypatch.setattr(run_folder, "write_json", write_json)
    assert run("generate", *words) == 0
    out = capsys.readouterr().out
    for name, asked in (("responses_base", 4), ("responses", 20)):  # the tuned model's controls too
        taken = f"{asked} of {asked} answers are taken from an interrupted run ({tmp_path}/{name}.partial.jsonl)"
        assert taken in out
    assert list(tmp_path.glob("*.partial.jsonl")) == []


def test_rows_are_asked_again_in_other_ways_unless_nobody_wants_that(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewordings = tmp_path / "rewordings.jsonl"
    rewordings.write_text('{"instruction": "Say p.", "paraphrases": ["P, please.", "Write p."]}\n')
    words = ("--model_name_or_path", finished, "--output_dir", tmp_path, "--max_new_tokens", "5")
    chosen = ("--controls", "foreign,no_input", "--control_rows", "2", "--paraphrases", rewordings)
    assert run(*words, *chosen) == 0

    out = capsys.readouterr().out
    assert "controls, on 2 rows: foreign 2, paraphrases 2, no_input not on 2 rows without an input\n" in out
    assert re.search(r"Right with its own instruction \d\.\d{3} .*, reworded .* \(exact match, n = 2\)\.\n", out)
    kept = json.loads((tmp_path / "responses_controls.json").read_text())
    asked = [(each["row_id"], each["instruction"]) for each in kept["answers"] if each["control"] == "paraphrases"]
    assert asked == [(15, "P, please."), (15, "Write p.")]  # a row that has rewordings is among the two
    assert "Does it read the instruction?" in (tmp_path / "report.html").read_text()

    assert run("score", "--output_dir", tmp_path, "--metrics", "token_f1") == 0
    assert "token_f1 with its own instruction" in capsys.readouterr().out.replace("Token F1", "token_f1")
    (tmp_path / "responses_controls.json").write_text("{}")
    assert run("score", "--output_dir", tmp_path) == 2
    assert "responses_controls.json has changed since it was written down in" in capsys.readouterr().err

    assert run(*words, "--controls", "[]") == 0
    assert "instruction" not in capsys.readouterr().out.partition("expected")[0].partition("interval")[2]
    assert not (tmp_path / "responses_controls.json").exists()
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert "controls" not in {row["system"] for row in rows}


def test_the_batch_is_sized_to_memory_and_halved_when_that_runs_out(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(*words: object) -> list[str]:
        few = ("--max_new_tokens", "5", "--controls", "[]")
        assert run("--model_name_or_path", finished, "--output_dir", tmp_path, *few, *words) == 0
        return [row["model_response"] for row in json.loads((tmp_path / "responses.json").read_text())]

    expected = answers("--batch_size", "1")
    assert "rows at once" not in capsys.readouterr().out
    assert answers("--verbose") == expected
    assert re.search(
        rf"tuned {finished}: 4 rows at once \(one takes up to 0.\d MiB, .* are free\)", capsys.readouterr().out
    )

    most = 3
    monkeypatch.setattr(Batch, "_forward", short_of_memory(lambda: most))
    assert answers() == expected
    halved = "not enough memory for 4 rows at once; continuing with 2 (batch_size: 2 starts there)"
    assert f"tuned {finished}: {halved}" in capsys.readouterr().out
    most = 0
    assert run("--model_name_or_path", finished, "--output_dir", tmp_path) == 2
    assert "not enough memory for a single row; allow fewer new tokens (max_new_tokens)" in capsys.readouterr().err


def short_of_memory(most: Callable[[], int]) -> Callable[..., list[int]]:
    forward = Batch._forward

    def short(batch: Batch, input_ids: list[list[int]], *rest: Any) -> list[int]:
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


def test_a_model_without_a_contract_needs_a_prompt(tmp_path: Path, model_folder: Path) -> None:
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
        (["--limit", "0"], "limit: 0 leaves nothing to answer; give 1 or more"),
        (["--control_rows", "0"], "control_rows: 0 leaves nothing to answer; give 1 or more"),
        (["--controls", "foreing"], "foreing"),
        (["--paraphrases", "nowhere.jsonl"], "paraphrases: nowhere.jsonl cannot be read (No such file or directory)"),
        (["--batch_size", "0"], "batch_size: 0 answers nothing; give 1 or more, or leave it out"),
        (["--splitt", "test"], "unknown key 'splitt'; did you mean split?"),
        (["--metrics", "exact_mach"], "metrics: 'exact_mach' is not one of"),
        (
            ["--judge_model", "llama3"],
            "judge_model is set, but nothing in this run reads it; it works with judge_backend",
        ),
        (["--judge_backend", "ollama"], "judge_model is missing: which model of ollama is to judge?"),
        (["--engine", "endpoint"], "base_url is missing: engine: endpoint asks a server"),
        (["--compare_with_base", "--compare_with", "x"], "contradict each other"),
    ],
)
def test_bad_input_ends_with_code_2(
    finished: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run("--model_name_or_path", finished, *arguments) == 2
    assert message in capsys.readouterr().err


def test_the_rows_of_a_step_are_shown(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def inspected(*words: object) -> int:
        return exit_code(lambda: inspect_data.main([str(word) for word in words]))

    assert inspected("--run", finished, "--step", 1) == 0
    out = capsys.readouterr().out
    assert out.startswith("step 1: 8 rows, ") and len(re.findall(r"^  user      Say [a-n]\.$", out, flags=re.M)) == 8
    assert inspected("--run", finished, "--step", 999) == 2
    assert "--step 999: " in capsys.readouterr().err
    assert inspected("--run", finished) == 2 and inspected("--step", 1) == 2


def test_a_folder_that_is_not_a_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--model_name_or_path", tmp_path / "none") == 2
    assert "none is not a folder here, so it cannot take the answers" in capsys.readouterr().err


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
    assert "the prompt contract does not fit" in capsys.readouterr().err
