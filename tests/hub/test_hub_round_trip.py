"""Runs that push themselves to a Hub on the loopback, and what a stranger then gets from there in a new process."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from transformers import AutoModelForCausalLM, AutoTokenizer

from faults.harness import write_config
from heed.data.sources import Source, read
from heed.errors import exit_code
from heed.evaluation.kept import Asked, Evaluation, read_answers, write_evaluation
from heed.evaluation.scores import score
from heed.files.hashes import file_sha256
from heed.hub import __main__ as command
from heed.hub.card import input_text, model_card
from heed.measure.metrics import load_metrics
from heed.measure.rows import Row, write_rows
from world.evaluation_folder import judging
from world.loopback_hub import WRITE_TOKEN, Hub, environment, running
from world.short_run import run
from world.small_world import ROOT

QUESTION = [{"role": "user", "content": "Say number 3.", "input": "3"}]
PULL = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
from heed.data.sources import Source, read

exec(sys.argv[2].replace("print(", "answer = ("))
print("snippet ran")
found = {}
for name in ("tester/full", "tester/adapter", "tester/sharded"):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    prompt = tokenizer.apply_chat_template(json.loads(sys.argv[1]), add_generation_prompt=True, tokenize=False)
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    found[name] = {"prompt": prompt, "logits": model.eval()(ids).logits[0, -1].tolist()}
found["rows"] = read(Source(data="tester/rows")).rows.sha256
print(json.dumps(found))
"""


def finished(folder: Path, name: str, *more: str) -> Path:
    """A run of five steps that pushes itself."""
    folder.mkdir()
    config = write_config(folder)
    assert run(config, "--max_steps", "5", "--push_to_hub", "true", "--hub_model_id", name, *more) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("round_trip")
    with running(folder / "hub") as hub, pytest.MonkeyPatch.context() as patch:
        patch.delenv("HF_HUB_OFFLINE")
        variables = environment(hub.endpoint, folder / "cache")
        for variable in ("HF_ENDPOINT", "HF_HOME", "NO_PROXY"):
            patch.setenv(variable, variables[variable])
        patch.setenv("HF_TOKEN", WRITE_TOKEN)
        patch.setenv("OMP_NUM_THREADS", "1")
        yield hub


@pytest.fixture(scope="module")
def runs(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    full = finished(folder / "full", "tester/full", "--hub_strategy", "checkpoints", "--hub_license", "mit")
    adapter = finished(
        folder / "adapter",
        "tester/adapter",
        "--use_peft",
        "true",
        "--hub_private_repo",
        "true",
        "--hub_strategy",
        "best",
    )
    sharded = folder / "sharded"
    model = AutoModelForCausalLM.from_pretrained(full)
    model.save_pretrained(sharded, max_shard_size="100KB")
    for path in full.iterdir():
        if path.suffix in (".json", ".jinja") and not (sharded / path.name).exists():
            (sharded / path.name).write_bytes(path.read_bytes())
    assert exit_code(lambda: command.main([str(sharded), "--hub_model_id", "tester/sharded"])) == 0
    rows = folder / "full" / "rows.json"
    # In another process: in this one the library has been told to stay offline.
    subprocess.run([sys.executable, "-m", "heed.hub", "push_data", str(rows), "tester/rows"], cwd=ROOT, check=True)
    return {"tester/full": full, "tester/adapter": adapter, "tester/sharded": sharded, "rows": rows}


def test_what_was_pushed_loads_elsewhere_with_equal_logits_and_the_same_prompt(hub: Hub, runs: dict[str, Path]) -> None:
    card = (hub.root / "models/tester/full/README.md").read_text()
    snippet = card.partition("```python\n")[2].partition("```")[0]
    assert 'from_pretrained("tester/full")' in snippet
    done = subprocess.run(
        [sys.executable, "-c", PULL, json.dumps(QUESTION), snippet],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name in ("tester/full", "tester/adapter", "tester/sharded"):
        tokenizer = AutoTokenizer.from_pretrained(runs[name])
        ids = tokenizer(found[name]["prompt"], return_tensors="pt").input_ids
        model = AutoModelForCausalLM.from_pretrained(runs[name])
        assert found[name]["prompt"].endswith("Say number 3.\n\n### Input:\n3\n\n### Response:\n")
        assert model.eval()(ids).logits[0, -1].tolist() == found[name]["logits"]
    assert found["rows"] == read(Source(data=str(runs["rows"]))).rows.sha256
    shards = sorted(path.name for path in (hub.root / "models/tester/sharded").glob("*.safetensors"))
    assert shards == [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    assert done.stdout.splitlines()[0] == "snippet ran"


def test_only_what_may_leave_has_left(hub: Hub, runs: dict[str, Path]) -> None:
    full = {path.name for path in (hub.root / "models/tester/full").rglob("*")}
    common = {"README.md", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "prompt_contract.json"}
    common |= {"metrics.jsonl", "loss.png"}
    assert full == common | {"config.json", "generation_config.json", "model.safetensors"}
    adapter = {path.name for path in (hub.root / "models/tester/adapter").rglob("*")}
    assert adapter == common | {"adapter_config.json", "adapter_model.safetensors"}
    assert hub.created["tester/adapter"]["visibility"] == "private"
    assert "visibility" not in hub.created["tester/full"]
    assert hub.messages.count("the model") == 3
    for name in ("tester/full", "tester/adapter"):  # peft writes a card of its own into each checkpoint
        assert "WARNING" not in (runs[name] / ".outbox" / "push.log").read_text()
    kept = [path for path in (runs["tester/full"] / ".outbox").iterdir() if path.is_dir()]
    assert kept == []


@pytest.mark.slow
def test_a_run_continues_from_the_weights_of_a_revision_on_the_hub(
    hub: Hub, runs: dict[str, Path], tmp_path: Path
) -> None:
    record = json.loads((runs["tester/full"] / "run.json").read_text())
    words = ["--model_name_or_path", "tester/full", "--model_revision", "main", "--prompt", "model"]
    words += ["--output_dir", str(tmp_path / "second"), "--max_steps", "1"]
    config = runs["tester/full"].parent / "run.yaml"
    done = subprocess.run(
        [sys.executable, "train_sft.py", "--config", str(config), *words], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "second" / "metrics.jsonl").read_text().splitlines()]
    began_with = next(line["eval_loss"] for line in lines if "eval_loss" in line and line["step"] == 0)
    assert began_with == pytest.approx(record["best_eval_loss"], abs=1e-6)


def evaluate(folder: Path) -> None:
    """Two rows: wrong before, one of them right after, and an answer that tries to be markup."""
    asked = {"base": ["no", "no"], "tuned": ["yes", "```\n<script>alert(1)</script>"]}
    systems = {}
    for name, answers in asked.items():
        rows: list[dict[str, Any]] = [
            {"row_id": number, "instruction": f"Say {number}.", "input": "", "output": "yes", "model_response": answer}
            for number, answer in enumerate(answers)
        ]
        file = folder / f"responses_{name}.json"
        file.write_text(json.dumps(rows))
        systems[name] = Asked(
            model=name, revision=None, responses=file.name, responses_sha256=file_sha256(file), contract=None
        )
    evaluation = Evaluation(
        heed="0.1.0",
        systems=systems,
        data="rows.json",
        split="test",
        data_sha256="ab",
        n=2,
        n_full=2,
        limit=None,
        prompt="alpaca_short",
        contract=None,
        engine="batch",
        max_new_tokens=16,
        versions={},
        command="eval_responses.py",
        time="",
        seconds=1.0,
        device="cpu",
    )
    write_evaluation(folder, evaluation)
    given = read_answers(folder, evaluation, lambda text: None)
    score(folder, evaluation, given, load_metrics(["exact_match"]), seen_rows=frozenset(), say=lambda text: None)


def test_a_card_says_what_was_measured_and_the_hub_can_read_it(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = runs["tester/full"]
    before = (folder / "README.md").read_text()
    assert "Its answers have not been measured yet." in before
    assert "Nobody has measured its answers" in before

    evaluate(folder)
    monkeypatch.setenv("WANDB_API_KEY", "Say 0.Say 0.Say 0.")
    record = json.loads((folder / "run.json").read_text())
    record["command"] += f" --data https://me:secret@example.com/rows.json {WRITE_TOKEN}"
    (folder / "run.json").write_text(json.dumps(record))
    assert exit_code(lambda: command.main([str(folder), "--card-only"])) == 0

    text = (folder / "README.md").read_text()
    data = ModelCard(text).data.to_dict()
    assert (data["license"], data["library_name"], data["pipeline_tag"]) == ("mit", "transformers", "text-generation")
    assert "base_model" not in data and "datasets" not in data  # a folder of this machine helps nobody
    name, results = model_index_to_eval_results(data["model-index"])
    assert name == "full"
    assert ("exact_match", 0.5) in [(result.metric_type, result.metric_value) for result in results]
    assert (
        "| Exact match | 2 | 0.000 [0.000 to 0.842] | 0.500 [0.013 to 0.987] | +0.500 [−0.780 to +0.988] | 1, 1, 0 |"
        in text
    )
    assert 'AutoModelForCausalLM.from_pretrained("tester/full")' in text
    assert "````text\ninstruction  Say 1." in text  # longer than the fence inside it
    assert "![Training and validation loss](loss.png)" in text
    assert record["data"]["rows_sha256"] in text
    assert WRITE_TOKEN not in text and "me:secret" not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--push_to_hub", "true"], "push_to_hub: true needs hub_model_id"),
        (["--push_to_hub", "true", "--hub_model_id", "a b"], "hub_model_id: 'a b' is not what a repository"),
        (["--hub_model_id", "me/model"], "hub_model_id is set, but nothing in this run reads it"),
        (
            ["--push_to_hub", "true", "--hub_model_id", "me/m", "--hub_strategy", "best", "--eval_strategy", "no"],
            "hub_strategy: best needs evaluations",
        ),
        (
            ["--push_to_hub", "true", "--hub_model_id", "me/m", "--hub_license", "Apache 2"],
            "hub_license: 'Apache 2' is not how the Hub names one",
        ),
        (["--hub_strategy", "all_checkpoints"], "'all_checkpoints' is not one of end, checkpoints, best"),
        (["--hub_token", "hf_x"], "hub_token has no place here"),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_anything_is_loaded(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run(stopped, "--max_steps", "5", *words) == 2
    assert message in capsys.readouterr().err


def test_a_push_that_lacks_something_says_what(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: command.main([str(runs["tester/sharded"] / "nothing")])) == 2
    assert "is not a run folder" in capsys.readouterr().err
    assert exit_code(lambda: command.main(["push_data", "absent.json", "me/rows"])) == 2
    assert "absent.json" in capsys.readouterr().err
    assert exit_code(lambda: command.main(["push_data", "rows.json"])) == 2
    assert "expected RUN, or push_data FILE NAME" in capsys.readouterr().err
    assert exit_code(lambda: command.main(["run", "--card_only", "--hub_private_repo", "true"])) == 2
    assert "--card_only sends nothing" in capsys.readouterr().err


def test_a_run_that_is_not_finished_is_not_sent(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder = str(stopped.parent / "run")
    assert exit_code(lambda: command.main([run_folder, "--hub_model_id", "tester/unfinished"])) == 2
    assert "is not finished and nothing of it waits to be sent" in capsys.readouterr().err


def test_a_card_says_which_judge_cannot_be_trusted(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs["tester/full"], folder)
    evaluate(folder)
    (folder / "judge_summary.json").write_text(json.dumps(judging(passed=False)))

    text = model_card(folder, None)
    assert "\n\n- **The judge failed its controls. openai:judge: It was talked into 80..**\n- **The judge" in text
    assert "\n- it is not known whether both were asked with the same prompt\n- cut: 2 rows not" in text


@pytest.mark.parametrize("name", ["alpaca", "alpaca_short", "chatml", "phi3", "question"])
def test_a_card_says_how_input_is_given_under_each_of_our_templates(name: str) -> None:
    assert input_text((ROOT / "prompts" / f"{name}.jinja").read_text()) == (
        "a user's message may carry `input` besides `content`"
    )


def test_a_card_sends_no_input_to_a_template_that_reads_none(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs["tester/full"], folder)
    contract = json.loads((folder / "prompt_contract.json").read_text())
    contract["template"] = "{# message.input is not for us #}{{ messages[0]['content'] }}{{ eos_token }}"
    (folder / "prompt_contract.json").write_text(json.dumps(contract))
    text = " ".join(model_card(folder, None).split())
    assert "it reads no `input`, so a text that belongs to the instruction follows it after an empty line. In" in text
    assert "may carry `input`" not in text


def test_a_card_leads_to_base_and_data_on_the_hub(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs["tester/adapter"], folder)
    record = json.loads((folder / "run.json").read_text())
    record["model"] = "openai-community/gpt2"
    record["data"]["source"] = {"train": "tatsu-lab/alpaca", "test": "rows.json"}
    (folder / "run.json").write_text(json.dumps(record))
    text = model_card(folder, "me/adapter", "second")
    data = ModelCard(text).data.to_dict()
    assert (data["base_model"], data["datasets"]) == ("openai-community/gpt2", ["tatsu-lab/alpaca"])
    assert (data["library_name"], "license" in data) == ("peft", False)
    assert "An adapter on [openai-community/gpt2](https://huggingface.co/openai-community/gpt2)" in text
    assert 'from_pretrained("me/adapter", revision="second")' in text
    assert "No licence is stated; those of the base model and of the data apply." in text


def test_a_card_has_the_benchmarks_and_whole_ones_in_its_metadata(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs["tester/adapter"], folder)
    shared: dict[str, Any] = {"value": 0.5, "ci95": (0.25, 0.75), "model": "m", "contract": "c", "data": "d"}
    shared |= {"data_sha256": "e", "library": "lm_eval", "versions": {}, "command": "x"}
    shared |= {"fewshot": 0, "chat_template": True}
    gained = {"headline": True, "difference_from_base": {"value": 0.25, "ci95": (0.0, 0.5), "n": 8}}
    base: dict[str, Any] = shared | {"name": "base", "details": {"headline": True}, "chance": 0.25}
    tuned: dict[str, Any] = shared | {"name": "tuned", "details": gained, "chance": 0.25}
    mmlu: dict[str, Any] = {"system": "MMLU", "task": "mmlu", "metric": "acc", "n": 8, "n_full": 8}
    part: dict[str, Any] = {"system": "GLUE", "task": "sst2", "metric": "acc", "n": 2, "n_full": 872}
    write_rows(folder, [Row(**base, **mmlu), Row(**tuned, **mmlu), Row(**tuned, **part)])
    text = model_card(folder, "me/adapter")
    assert (
        "| MMLU | mmlu | acc | 0-shot, chat template | 8 | 0.500 [0.250 to 0.750] | 0.500 [0.250 to 0.750] "
        "| +0.250 [0.000 to +0.500] | 0.250 |\n"
    ) in text
    assert "| GLUE | sst2 | acc | 0-shot, chat template | 2 of 872 |  | 0.500" in text
    [result] = model_index_to_eval_results(ModelCard(text).data.to_dict()["model-index"])[1]
    assert (result.task_name, result.metric_type, result.metric_value) == ("MMLU", "acc", 0.5)


def test_rows_with_a_token_are_not_shared(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"instruction": "Log in.", "output": "Done."}, {"instruction": f"Use {WRITE_TOKEN}.", "output": "Done."}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    assert exit_code(lambda: command.main(["push_data", str(tmp_path / "rows.json"), "tester/leak"])) == 2
    assert "rows.json:" in capsys.readouterr().err
    assert not (hub.root / "datasets/tester/leak").exists()
