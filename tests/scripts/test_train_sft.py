"""The training script as a user runs it, on a random model of a few thousand parameters."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import eval_responses
import train_sft
from heed import merge
from heed.errors import exit_code
from heed.runs.finished import set_aside
from world.small_world import ROOT, gpt2, save_model

LETTERS = "abcdefghijklmnopqrst"
WORDS = [*LETTERS, *(2 * letter for letter in LETTERS)]
ROWS = [{"instruction": f"Say {word}.", "input": "", "output": f"{word}!"} for word in WORDS]
QUICK = """\
prompt: alpaca_short
num_train_epochs: 1
per_device_train_batch_size: 4
learning_rate: 1.0e-2
eval_steps: 4
save_steps: 4
logging_steps: 2
sample_max_new_tokens: 5
use_cpu: true
bf16: false
disable_tqdm: true
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    model = save_model(tmp_path / "base", gpt2())
    data = tmp_path / "rows.json"
    data.write_text(json.dumps(ROWS))
    path = tmp_path / "run.yaml"
    path.write_text(QUICK + f"model_name_or_path: {model}\ndata: {data}\noutput_dir: {tmp_path / 'run'}\n")
    return path


def run(config_file: Path, *arguments: str) -> int:
    return exit_code(lambda: train_sft.main(["--config", str(config_file), *arguments]))


def losses(folder: Path, name: str = "loss") -> dict[int, float]:
    logs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {log["step"]: log[name] for log in logs if name in log}


def test_a_run_folder_is_whole(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config_file, "--split", "position") == 0
    folder = config_file.parent / "run"
    out = capsys.readouterr().out
    names = {path.name for path in folder.iterdir()}
    assert {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "prompt_contract.json",
    } <= names
    assert {"resolved_config.json", "splits.json", "metrics.jsonl", "samples.jsonl", "loss.png", "run.json"} <= names
    assert not list(folder.rglob("training_args.bin"))
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-8", "checkpoint-9"]
    for checkpoint in folder.glob("checkpoint-*"):
        assert (checkpoint / "prompt_contract.json").read_bytes() == (folder / "prompt_contract.json").read_bytes()
        assert (checkpoint / "chat_template.jinja").read_text() == (ROOT / "prompts/alpaca_short.jinja").read_text()

    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "done" and record["steps"] == 9
    assert record["splits"] == {"train": 34, "test": 4, "validation": 2}
    assert record["reload_max_logit_difference"] == 0.0
    assert record["num_input_tokens_seen"] == record["encoded"]["train"]["tokens"]
    assert json.loads((folder / "splits.json").read_text())["test"] == [34, 35, 36, 37]
    resolved = json.loads((folder / "resolved_config.json").read_text())
    assert resolved["learning_rate"] == {"value": 0.01, "source": f"{config_file}:4"}
    assert resolved["loss_on"] == {"value": "response", "source": "default"}

    assert set(losses(folder, "initial_train_loss")) == {0}
    assert set(losses(folder, "eval_loss")) == {0, 4, 8, 9}
    assert losses(folder, "eval_loss")[9] < losses(folder, "eval_loss")[0]
    assert len((folder / "samples.jsonl").read_text().splitlines()) == 1
    assert "response 100 %, prompt 0 %" in out
    assert "loaded again, its logits differ by 0.0e+00 at most" in out


def test_every_way_of_making_batches_trains(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = config_file.parent / "run"
    by_rows = {}
    for batching in ("flat", "padded"):
        assert run(config_file, "--batching", batching, "--overwrite_output_dir", "true", "--verbose") == 0
        by_rows[batching] = losses(folder)
        assert f"speed     {batching} rows" in capsys.readouterr().out
    assert by_rows["flat"] == pytest.approx(by_rows["padded"], abs=1e-4)
    tokens = ("--tokens_per_batch", "200", "--train_sampling_strategy", "group_by_length", "--speed", "graph")
    assert run(config_file, *tokens, "--overwrite_output_dir", "true") == 0
    out = capsys.readouterr().out
    assert "eager (WARNING: speed: graph does not work here: it needs CUDA, this is a cpu)" in out
    assert "of at most 200 tokens" in out
    record = json.loads((folder / "run.json").read_text())
    assert record["num_input_tokens_seen"] == record["encoded"]["train"]["tokens"]
    assert json.loads((folder / "config.json").read_text()).get("_attn_implementation") is None
    assert "heed" not in (folder / "config.json").read_text()


def test_the_saved_model_answers_through_plain_transformers(config_file: Path) -> None:
    """The chat template saved with the tokenizer gives the very prompt of training, and EOS is set to stop at."""
    assert run(config_file) == 0
    folder = config_file.parent / "run"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    contract = json.loads((folder / "prompt_contract.json").read_text())
    ids = tokenizer.apply_chat_template(contract["golden_messages"][:1], add_generation_prompt=True, return_dict=False)
    assert ids == contract["golden_prompt_ids"]
    assert model.generation_config.eos_token_id == contract["stop_token_ids"][0] == 0


def test_without_arguments_the_command_for_a_csv_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    train_sft.main([])
    shown = capsys.readouterr().out
    [command] = [line.strip() for line in shown.splitlines() if "train_sft.py --config" in line]
    assert command in (ROOT / "README.md").read_text()


def test_a_dry_run_shows_three_rows_and_writes_nothing(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config_file, "--split", "position", "--dry-run") == 0
    out = capsys.readouterr().out
    assert not (config_file.parent / "run").exists()
    assert "row 0 (" in out and "row 2 (" in out and "row 3 (" not in out
    assert ":|\\n|[a][!][<|endoftext|>]" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning_rat", "1"], "unknown key 'learning_rat'; did you mean learning_rate?"),
        (["--lora_r", "4"], "lora_r is set, but nothing in this run reads it; it works with use_peft: true"),
        (["--split_shares", "0.9,0.1,0"], "the validation split is empty; set eval_strategy: no"),
        (["--max_length", "300"], "max_length: 300, but the model has 256 positions"),
        (["--max_length", "20"], "the data audit stops here: too_long"),
        (["--tokens_per_batch", "20"], "tokens_per_batch: 20 is too small for the longest training row; raise it to"),
        (["--tokens_per_batch", "64", "--per_device_train_batch_size", "4"], "contradict each other; keep one"),
        (["--tokens_per_batch", "64", "--batching", "padded"], "most of a batch may be padding; set batching: flat"),
        (
            ["--attn_implementation", "eager", "--batching", "flat"],
            "attn_implementation: eager does not apply to flat rows",
        ),
        (
            ["--train_sampling_strategy", "batch_rebalance"],
            "batch_rebalance does not resume exactly; choose from random",
        ),
        (["--prompt", "alpacca"], "'alpacca' is neither one of"),
        (["--data", "nowhere.json"], "'nowhere.json' is not a file, a folder, a URL, or a Hub id"),
        (["--model_name_or_path", "nobody/nothing"], "the tokenizer 'nobody/nothing' could not be loaded"),
        (["--report_to", "trackio"], "report_to: trackio needs trackio, which is not installed"),
        (["--eval_strategy", "no", "--early_stopping_patience", "2"], "early_stopping_patience is set, but nothing"),
        (["--optim", "adamw_tork"], "did you mean adamw_torch"),
        (["--resume_from_checkpoint", "true"], "resume: auto | never | PATH does it"),
        (["--resume", "yes"], "resume: yes is neither auto, never, a checkpoint"),
        (["--global_batch_size", "8", "--tokens_per_batch", "99"], "global_batch_size and tokens_per_batch contradict"),
        (["--allow_changed", "learning_rat"], "is not a key that runs are compared by; did you mean learning_rate?"),
        (["--save_total_limit", "two"], "'two' is not a whole number or null"),
    ],
)
def test_bad_input_ends_with_code_2_and_one_sentence_and_leaves_nothing(
    config_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: Any, message: str
) -> None:
    monkeypatch.setattr("heed.training.choices.find_spec", lambda name: None)  # as on a machine without trackers
    assert run(config_file, *arguments) == 2
    [error] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in error
    assert not (config_file.parent / "run").exists()


def test_an_earlier_run_is_kept_unless_overwriting_is_asked_for(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = config_file.parent / "run"
    assert run(config_file, "--max_steps", "1") == 0
    weights = (folder / "model.safetensors").read_bytes()
    assert run(config_file) == 2
    assert "max_steps: 1 then, -1 now\nSet them back, choose another output_dir" in capsys.readouterr().err
    assert run(config_file, "--max_steps", "1", "--resume", "never") == 2
    assert "contains an earlier run" in capsys.readouterr().err
    assert run(config_file, "--overwrite_output_dir", "--data", "nowhere.json") == 2  # fails before deleting
    assert (folder / "model.safetensors").read_bytes() == weights
    assert run(config_file, "--overwrite_output_dir", "--max_steps", "2") == 0
    assert json.loads((folder / "run.json").read_text())["steps"] == 2


@pytest.mark.parametrize(
    ("rows", "more"),
    [
        (1, ["--split_shares", "1,0,0"]),
        (8, ["--data", "{train: TRAIN, test: TEST}", "--compare_with_base", "true", "--compare_max_new_tokens", "3"]),
    ],
)
def test_a_run_without_validation_rows_trains(config_file: Path, rows: int, more: list[str]) -> None:
    for name, those in (("TRAIN", ROWS[:rows]), ("TEST", ROWS[30:32])):
        (config_file.parent / name).with_suffix(".json").write_text(json.dumps(those))
        more = [word.replace(name, str((config_file.parent / name).with_suffix(".json"))) for word in more]
    if rows == 1:
        more += ["--data", str(config_file.parent / "TRAIN.json")]
    config_file.write_text(
        "\n".join(x for x in config_file.read_text().splitlines() if not x.startswith(("eval_steps", "sample_max")))
    )
    assert run(config_file, *more, "--eval_strategy", "no", "--max_steps", "2") == 0
    folder = config_file.parent / "run"
    record = json.loads((folder / "run.json").read_text())
    assert (record["splits"]["validation"], record["kept"]) == (0, "step 2")
    assert not (folder / "samples.jsonl").exists() and (folder / "report.html").exists() == (rows == 8)


def test_another_base_of_the_same_shape_is_refused_on_resume(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--save_steps", "1", "--eval_strategy", "no", "--preflight", "quick")
    config_file.write_text(
        "\n".join(x for x in config_file.read_text().splitlines() if x[:5] not in ("eval_", "save_"))
    )
    folder = config_file.parent / "run"
    for more, changeable in (((), True), (("--use_peft", "true"), False)):
        words = (*few, *more, "--output_dir", str(folder) + str(changeable))
        save_model(config_file.parent / "base", gpt2())
        assert run(config_file, *words, "--max_steps", "1") == 0
        torch.manual_seed(3)
        other = gpt2()
        torch.nn.init.normal_(other.get_input_embeddings().weight)  # type: ignore[arg-type]
        save_model(config_file.parent / "base", other)
        assert run(config_file, *words, "--max_steps", "2", "--allow_changed", "max_steps") == 2
        name = "base" if changeable else "model.frozen"
        assert f"  {name}: " in capsys.readouterr().err
        allowed = f"max_steps,{name}"
        assert run(config_file, *words, "--max_steps", "2", "--allow_changed", allowed) == (0 if changeable else 2)
    assert "cannot be changed in a run" in capsys.readouterr().err


def test_the_same_command_makes_the_comparison_that_an_interrupted_start_left_undone(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--compare_with_base", "true", "--compare_max_new_tokens", "5", "--max_steps", "2")

    def interrupted(*evidence: object) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("heed.evaluation.run.write_report_of", interrupted)
        assert run(config_file, *words) == 130
    folder = config_file.parent / "run"
    assert json.loads((folder / "run_state.json").read_text())["status"] == "done"
    weights = (folder / "model.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert run(config_file, *words) == 0
    assert "done      " + str(folder) + " is trained, and not compared yet\n" in capsys.readouterr().out
    assert (folder / "report.html").is_file() and (folder / "model.safetensors").stat().st_mtime_ns == weights
    capsys.readouterr()
    assert run(config_file, *words) == 0
    assert capsys.readouterr().out.rstrip().endswith("is finished; overwrite_output_dir: true starts over")


@pytest.mark.parametrize("adapter", ["false", "true"])
def test_relative_paths_of_a_run_work_from_any_folder(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: str
) -> None:
    monkeypatch.chdir(tmp_path)
    config_file.write_text(config_file.read_text().replace(f"{tmp_path}/", ""))
    assert run(config_file, "--max_steps", "1", "--use_peft", adapter) == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (elsewhere / "base").mkdir()  # another thing of the same name
    words = ["--model_name_or_path", "../run", "--compare_with_base", "--max_new_tokens", "3"]
    assert exit_code(lambda: eval_responses.main(words)) == 0
    if adapter == "true":
        assert exit_code(lambda: merge.main(["../run", "../merged"])) == 0


def test_a_folder_that_is_not_a_run_is_never_touched(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = config_file.parent / "run"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    assert run(config_file, "--overwrite_output_dir") == 2
    assert "has no Heed run, so it will not be touched" in capsys.readouterr().err
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_dropped_rows_are_listed(config_file: Path) -> None:
    data = config_file.parent / "bad.json"
    data.write_text(json.dumps([{"instruction": "Nothing."}, *ROWS]))
    assert run(config_file, "--data", str(data), "--on_bad_row", "drop", "--max_steps", "1") == 0
    [line] = (config_file.parent / "run" / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "row_id": 0,
        "place": f"{data}:1 (row 1)",
        "reasons": ["field 'output': missing (the row has 'instruction')"],
        "value": {"instruction": "Nothing."},
    }


NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ m.role + ': ' + m.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def test_rows_that_a_template_refuses_are_dropped_and_counted_like_other_bad_rows(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = config_file.parent / "own.jinja"
    template.write_text(NO_SYSTEM)
    chats = [
        [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["output"]}]
        for row in ROWS
    ]
    chats[1].insert(0, {"role": "system", "content": "Be kind."})
    data = config_file.parent / "chats.jsonl"
    data.write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in chats))
    given = ("--data", str(data), "--prompt", str(template), "--max_steps", "1")
    assert run(config_file, *given) == 2
    assert "System role not supported (on_bad_row: drop leaves such rows out)" in capsys.readouterr().err
    assert run(config_file, *given, "--on_bad_row", "drop") == 0
    folder = config_file.parent / "run"
    [line] = (folder / "rejected.jsonl").read_text().splitlines()
    reason = f"prompt '{template}': cannot render a conversation of system, user: System role not supported"
    assert (json.loads(line)["place"], json.loads(line)["reasons"]) == (f"{data}:2", [reason])
    assert f"1 bad row left out, first {data}:2: {reason}" in capsys.readouterr().out
    assert 1 not in {record.row_id for split in ("train", "test") for record in set_aside(folder, split)}


@pytest.mark.parametrize("kind", ["mapping", "folder"])
def test_a_source_that_names_its_splits_is_split_that_way(
    config_file: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    folder = config_file.parent / "split"
    folder.mkdir()
    for name, rows in (("train", ROWS[:8]), ("validation", ROWS[8:11])):
        (folder / f"{name}.json").write_text(json.dumps(rows))
    mapping = {name: str(folder / f"{name}.json") for name in ("train", "validation")}
    data = json.dumps(mapping) if kind == "mapping" else str(folder)
    assert run(config_file, "--data", data, "--max_steps", "1") == 0
    assert "train 8, test 0, validation 3 (by source)" in capsys.readouterr().out
    if kind == "mapping":
        assert run(config_file, "--data", data, "--split", "hash", "--overwrite_output_dir") == 2
        assert "split: hash, but data names a file for each split" in capsys.readouterr().err


def test_early_stopping_ends_the_run_and_keeps_the_best_model(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = ["--eval_steps", "1", "--save_steps", "1", "--learning_rate", "2.0"]
    assert run(config_file, "--early_stopping_patience", "2", *steps) == 0
    folder = config_file.parent / "run"
    record = json.loads((folder / "run.json").read_text())
    scores = losses(folder, "eval_loss")
    assert record["steps"] < 9 and "early stopping at step" in capsys.readouterr().out
    best = min((score, step) for step, score in scores.items() if step > 0)
    assert (record["best_eval_loss"], record["kept"]) == (best[0], f"step {best[1]}")


def test_validation_sets_with_names_are_each_evaluated_and_the_first_steers(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {}
    for name, rows in (("train", ROWS[:8]), ("near", ROWS[8:11]), ("far", ROWS[20:25])):
        files[name] = str(config_file.parent / f"{name}.json")
        Path(files[name]).write_text(json.dumps(rows))
    named = {"train": files["train"], "validation": {"near": files["near"], "far": files["far"]}}
    often = ["--data", json.dumps(named), "--eval_steps", "1", "--save_steps", "1", "--num_train_epochs", "3"]
    assert run(config_file, *often) == 0
    folder, out = config_file.parent / "run", capsys.readouterr().out
    assert "validation set near: 3 rows (eval_loss, which steers)" in out
    assert "validation set far: 5 rows (eval_far_loss)" in out
    assert re.search(
        r"step +6 .* validation loss [\d.]+  over 3 rows, .*\n.* validation loss of far [\d.]+  over 5 rows", out
    )
    assert json.loads((folder / "splits.json").read_text())["validation_sets"] == {
        "near": [8, 9, 10],
        "far": [11, 12, 13, 14, 15],
    }
    near, far = losses(folder, "eval_loss"), losses(folder, "eval_far_loss")
    assert set(near) == set(far) == set(range(7))
    assert json.loads((folder / "run.json").read_text())["best_eval_loss"] == min(near[step] for step in range(1, 7))
    assert [record.instruction for record in set_aside(folder, "validation")][2:4] == ["Say k.", "Say aa."]

    (config_file.parent / "whole").mkdir()
    for name, part in (("train", "train"), ("near", "validation-1"), ("far", "validation-2")):
        Path(files[name]).rename(config_file.parent / "whole" / f"{part}.json")
    assert run(config_file, *often[2:], "--data", str(config_file.parent / "whole")) == 2
    assert 'validation_sets: ["near", "far"] then, not set now' in capsys.readouterr().err


def test_a_lora_run_saves_an_adapter_that_loads_again(config_file: Path) -> None:
    assert run(config_file, "--use_peft", "--lora_r", "4") == 0
    folder = config_file.parent / "run"
    assert (folder / "adapter_model.safetensors").is_file() and not (folder / "model.safetensors").exists()
    record = json.loads((folder / "run.json").read_text())
    assert record["trained_parameters"] == 2 * 4 * (128 + 64 + 160 + 160)
    assert record["reload_max_logit_difference"] == 0.0


def test_a_run_in_bf16_is_saved_in_float32_and_loads_to_the_same_logits(config_file: Path) -> None:
    assert run(config_file, "--bf16", "--max_steps", "2") == 0
    folder = config_file.parent / "run"
    assert json.loads((folder / "run.json").read_text())["reload_max_logit_difference"] == 0.0
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.float32


def test_a_run_resumed_from_a_checkpoint_ends_with_the_same_weights(config_file: Path) -> None:
    folder = config_file.parent / "run"
    assert run(config_file) == 0
    logged = (folder / "metrics.jsonl").read_text().splitlines()
    whole = torch.load(folder / "checkpoint-9" / "optimizer.pt", weights_only=True)
    assert run(config_file, "--resume", str(folder / "checkpoint-8")) == 0
    again = torch.load(folder / "checkpoint-9" / "optimizer.pt", weights_only=True)
    for number, state in whole["state"].items():
        assert torch.equal(state["exp_avg"], again["state"][number]["exp_avg"])
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == [json.loads(line)["step"] for line in logged]  # what came after the checkpoint is there once


def test_tensorboard_gets_the_losses(config_file: Path) -> None:
    assert run(config_file, "--report_to", "tensorboard", "--max_steps", "2") == 0
    assert list((config_file.parent / "run").rglob("events.out.tfevents.*"))


@pytest.mark.slow
def test_two_processes_compute_the_losses_of_one(config_file: Path) -> None:
    """Real processes over gloo: half the batch each, unequal tokens, an odd number of validation rows."""
    rows = [row | {"output": row["output"] * (number % 5 + 1)} for number, row in enumerate(ROWS)]
    data = config_file.parent / "rows.json"
    data.write_text(json.dumps(rows))
    common = ["--split_shares", "0.8,0.025,0.175", "--max_steps", "4", "--logging_steps", "1", "--max_grad_norm", "0"]
    assert run(config_file, *common) == 0
    two = config_file.parent / "two"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["train_sft.py", "--config", str(config_file), *common, "--output_dir", str(two)]
    command += ["--per_device_train_batch_size", "2"]
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    one = config_file.parent / "run"
    for name in ("loss", "eval_loss", "eval_p_eos", "eval_premature_eos"):
        ours, theirs = losses(one, name), losses(two, name)
        assert ours.keys() == theirs.keys()
        assert max(abs(ours[step] - theirs[step]) for step in ours) < 1e-5
    assert json.loads((two / "run.json").read_text())["processes"] == 2
    assert done.stdout.count("saved ") == 1  # the second process is silent


def test_accelerate_launch_runs_the_script_and_passes_on_its_exit_code(config_file: Path) -> None:
    command = [str(Path(sys.executable).parent / "accelerate"), "launch", "train_sft.py", "--config", str(config_file)]
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--max_steps", "1"], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((config_file.parent / "run" / "run.json").read_text())["status"] == "done"


@pytest.mark.parametrize("script", ["train_sft", "train_dpo", "eval_responses", "inspect_data", "arena"])
def test_help_is_quick_since_it_loads_nothing_heavy(script: str) -> None:
    program = f"import sys, {script}; {script}.main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    *shown, loaded = done.stdout.splitlines()
    assert any(line.lstrip().startswith("--") for line in shown)
    heavy = {"torch", "transformers", "datasets", "peft", "trl", "numpy", "matplotlib", "gradio", "pandas"}
    assert not heavy & set(loaded.split())
