"""Preference tuning as a user runs it, on a random model that was fine-tuned for a few steps."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import log_softmax, logsigmoid
from transformers import AutoModelForCausalLM

import eval_responses
import inspect_data
import train_dpo
import train_sft
from heed.data.sources import Source
from heed.errors import exit_code
from heed.hub.card import model_card
from heed.models.loading import load_tokenizer
from heed.preferences.encoding import encode_pair
from heed.preferences.pairs import Pair, read_pairs
from heed.preferences.trainer import offered_losses
from heed.prompts.template import load_prompt
from heed.runs.finished import set_aside, weight_bits
from world.small_world import ROOT, gpt2, save_model

LETTERS = "abcdefghijklmnopqrst"
WORDS = [*LETTERS, *(2 * letter for letter in LETTERS)]
ROWS = [{"instruction": f"Say {word}.", "input": "", "output": f"{word}!"} for word in WORDS]
ANYWHERE = {
    "per_device_train_batch_size": "4",
    "use_cpu": "true",
    "bf16": "false",
    "disable_tqdm": "true",
    "logging_steps": "1",
    "learning_rate": "1e-2",
}
QUICK = ANYWHERE | {"num_train_epochs": "1", "eval_steps": "4", "save_steps": "2", "validation_share": "0.2"}


def words(settings: dict[str, str]) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


@pytest.fixture(scope="module")
def sft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on instructions."""
    folder = tmp_path_factory.mktemp("sft")
    save_model(folder / "base", gpt2())
    (folder / "rows.json").write_text(json.dumps(ROWS))
    told = {
        "model_name_or_path": str(folder / "base"),
        "data": str(folder / "rows.json"),
        "output_dir": str(folder / "run"),
        "prompt": "alpaca_short",
        "split": "position",
        "max_steps": "2",
        "sample_max_new_tokens": "0",
    }
    assert exit_code(lambda: train_sft.main(words(ANYWHERE | told))) == 0
    return folder / "run"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Shouting is preferred; of 20 training rows."""
    return write_pairs(tmp_path / "pairs.jsonl", range(20))


def write_pairs(path: Path, rows: range, **changes: Any) -> Path:
    lines = [
        {"prompt": ROWS[row]["instruction"], "chosen": f"{WORDS[row].upper()}!", "rejected": f"{WORDS[row]}, I say."}
        | changes
        for row in rows
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run(sft: Path, pairs: Path, folder: Path, **changes: str) -> int:
    told = {"model_name_or_path": str(sft), "pairs": str(pairs), "output_dir": str(folder)}
    return exit_code(lambda: train_dpo.main(words(QUICK | told | changes)))


def logs(folder: Path, name: str = "loss") -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {log["step"]: log[name] for log in lines if name in log}


def test_a_run_on_pairs_is_a_run_like_any_other(sft: Path, pairs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run(sft, pairs, folder) == 0
    assert {"model.safetensors", "chat_template.jinja", "loss.png", "flight.jsonl", "splits.json"} <= {
        path.name for path in folder.iterdir()
    }
    assert (folder / "prompt_contract.json").read_text() == (sft / "prompt_contract.json").read_text()
    assert not (folder / "README.md").exists() and not list(folder.rglob("training_args.bin"))
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "done" and record["steps"] == 4 and record["splits"]["train"] == 16
    assert record["reload_max_logit_difference"] == 0.0
    assert logs(folder, "eval_loss")[0] == pytest.approx(0.6931, abs=1e-4)  # log 2: it is still its own reference
    assert logs(folder, "eval_rewards/margins")[4] > 0
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]


def test_the_loss_is_that_of_the_paper_on_our_ids(sft: Path, pairs: Path, tmp_path: Path) -> None:
    assert run(sft, pairs, tmp_path / "run", eval_on_start="false", beta="0.5") == 0
    step = json.loads((tmp_path / "run/flight.jsonl").read_text().splitlines()[1])
    read = read_pairs(Source(data=str(pairs))).pairs
    prompt = load_prompt("alpaca_short", load_tokenizer(str(sft)))
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "run/checkpoint-2").eval()
    reference = AutoModelForCausalLM.from_pretrained(sft).eval()

    def log_likelihood(model: Any, before: list[int], answer: list[int]) -> torch.Tensor:
        ids = torch.tensor([before + answer])
        each = log_softmax(model(ids).logits[0, :-1].float(), dim=-1).gather(1, ids[0, 1:, None])[:, 0]
        return each[-len(answer) :].sum()

    def margin(number: int) -> torch.Tensor:
        before, chosen, rejected = encode_pair(read[number], prompt)
        gains = [
            log_likelihood(policy, before, answer) - log_likelihood(reference, before, answer)
            for answer in (chosen, rejected)
        ]
        return gains[0] - gains[1]

    third = json.loads((tmp_path / "run/flight.jsonl").read_text().splitlines()[2])
    with torch.no_grad():
        expected = -torch.stack([logsigmoid(0.5 * margin(number)) for number in third["rows"]]).mean()
    assert step["step"] == 2 and len(third["rows"]) == 4
    assert logs(tmp_path / "run")[3] == pytest.approx(float(expected), abs=1e-5)


def test_typed_control_tokens_are_text_in_prompt_and_answers(sft: Path) -> None:
    prompt = load_prompt("alpaca_short", load_tokenizer(str(sft)))
    end = prompt.tokenizer.eos_token
    question = {"role": "user", "content": f"Say {end} twice."}
    pair = Pair(place="x:1", prompt=(question,), chosen=f"{end}{end}", rejected=f"No {end}.")  # type: ignore[arg-type]
    before, chosen, rejected = encode_pair(pair, prompt)
    assert before == prompt.encode_prompt([question])  # type: ignore[list-item]
    for ids in (chosen, rejected):
        assert [place for place, token in enumerate(ids) if token == prompt.eos_token_id] == [len(ids) - 1]
    assert prompt.eos_token_id not in before


def test_pairs_on_held_out_rows_are_refused_unless_allowed(
    sft: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = write_pairs(tmp_path / "test.jsonl", range(20, 36))
    assert run(sft, held_out, tmp_path / "run") == 2
    told = capsys.readouterr().err
    assert "pairs: 2 of 16 pairs are about test rows of the run, by row_id or by what is asked" in told
    assert not (tmp_path / "run").exists()
    assert run(sft, held_out, tmp_path / "run", allow_held_out="[test]") == 0
    assert "2 pairs about test rows of the run, as allowed" in capsys.readouterr().out


def test_where_the_rows_of_the_run_have_changed_held_out_questions_are_known_by_number_alone(
    sft: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = sft.parent / "rows.json"
    before = rows.read_text()
    rows.write_text(json.dumps(ROWS[1:]))
    try:
        told = words(QUICK | {"model_name_or_path": str(sft), "pairs": str(pairs), "output_dir": str(tmp_path / "run")})
        assert exit_code(lambda: train_dpo.main([*told, "--dry-run"])) == 0
    finally:
        rows.write_text(before)
    shown = capsys.readouterr().out
    assert f"held-out rows are known by their numbers alone: data: {rows} has changed" in shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rejected": "A!", "chosen": "A!"}, "pairs.jsonl:1: chosen and rejected are the same"),
        ({"rejected": " "}, "pairs.jsonl:1: field 'rejected'"),
        ({"prompt": ""}, "pairs.jsonl:1: field 'prompt': there is no prompt"),
    ],
)
def test_a_bad_pair_is_named_by_file_and_line(
    sft: Path, tmp_path: Path, changes: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(sft, write_pairs(tmp_path / "pairs.jsonl", range(4), **changes), tmp_path / "run") == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("loss_type", "[kto_pair]", "loss_type: TRL has no kto_pair; it has sigmoid, hinge, ipo"),
        ("sync_ref_model", "true", "sync_ref_model has no place here: a reference that changes is in no checkpoint"),
        ("loss_type", "[exo_pair]", "TRL: Label smoothing must be greater than 0.0"),
        (
            "max_length",
            "12",
            "tokens, and 16 pairs in all over max_length 12; raise it, or leave them out",
        ),
        ("validation_share", "1", "validation_share: 1 is not a share"),
        ("per_device_train_batch_size", "17", "16 training rows do not fill one step of 17"),
        ("lora_dropout", "0.1", "lora_dropout"),
    ],
)
def test_what_cannot_be_followed_is_refused(
    sft: Path, pairs: Path, tmp_path: Path, name: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(sft, pairs, tmp_path / "run", **{name: value}) == 2
    assert message in capsys.readouterr().err


def test_losses_are_trls_by_name(sft: Path, pairs: Path, tmp_path: Path) -> None:
    assert {"sigmoid", "ipo", "hinge", "robust", "sft"} <= set(offered_losses())
    assert run(sft, pairs, tmp_path / "run", loss_type="[ipo]") == 0
    assert logs(tmp_path / "run")[1] == pytest.approx((1 / (2 * 0.1)) ** 2)  # no margin yet: (0 - 1 / 2 beta) squared


def test_a_run_continues_from_a_checkpoint_as_if_nothing_had_been(sft: Path, pairs: Path, tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    settings = {"logging_steps": "3", "logging_first_step": "false"}  # a log covers steps before and after
    assert run(sft, pairs, whole, **settings) == 0
    assert run(sft, pairs, resumed, resume=str(whole / "checkpoint-2"), **settings) == 0
    for name, value in load_file(whole / "model.safetensors").items():
        assert torch.equal(value, load_file(resumed / "model.safetensors")[name]), name
    for name in ("loss", "rewards/margins", "entropy", "num_input_tokens_seen"):
        assert logs(resumed, name)[3] == logs(whole, name)[3]


def test_a_step_that_is_not_finite_names_its_rows_and_spares_the_weights(
    sft: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(sft, pairs, tmp_path / "run", learning_rate="1e30", max_grad_norm="0") == 2
    told = capsys.readouterr().err
    assert "the loss or its gradient is not finite" in told and "Its rows: " in told


@pytest.mark.parametrize("precomputed", ["false", "true"])
def test_a_fresh_adapter_has_the_model_without_it_as_reference(
    sft: Path, pairs: Path, tmp_path: Path, precomputed: str
) -> None:
    folder = tmp_path / "run"
    assert run(sft, pairs, folder, use_peft="true", precompute_ref_log_probs=precomputed) == 0
    assert logs(folder, "eval_loss")[0] == pytest.approx(0.6931, abs=1e-4)
    assert (folder / "adapter_model.safetensors").is_file() and not (folder / "ref").exists()
    assert weight_bits(folder) is None
    again = tmp_path / "again"  # tuned further: its reference is the adapter as it was
    assert run(folder, pairs, again, use_peft="true") == 0
    assert logs(again, "eval_loss")[0] == pytest.approx(0.6931, abs=1e-4)
    assert not (again / "ref").exists() and not (again / "checkpoint-2/ref").exists()
    assert run(folder, pairs, tmp_path / "third") == 2


def test_it_is_compared_with_the_model_before_and_with_the_base(
    sft: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert run(sft, pairs, folder, compare_with_base="true", compare_max_new_tokens="3") == 0
    evaluation = json.loads((folder / "evaluation.json").read_text())
    models = {name: each["model"] for name, each in evaluation["systems"].items()}
    assert models == {"sft": str(sft), "base": str(sft.parent / "base"), "tuned": str(folder)}
    assert evaluation["n"] == 4 and (folder / "report.html").is_file()
    assert [record.row_id for record in set_aside(folder, "test")] == [34, 35, 36, 37]
    capsys.readouterr()
    assert exit_code(lambda: inspect_data.main(["--run", str(folder), "--step", "2"])) == 0
    shown = capsys.readouterr().out
    assert shown.count(f"  {pairs}:") == 4
    assert exit_code(lambda: inspect_data.main(["--run", str(folder), "--map"])) == 2
    assert "learned from pairs, and has no loss of single rows" in capsys.readouterr().err
    card = model_card(folder, "me/x")
    assert f"`{sft}`, tuned further on what was preferred, on 16 pairs of `{pairs}`" in card
    assert "- dpo\n- trl\n" in card and "trl 1.16.0" in card
    told = ["--model_name_or_path", str(folder), "--max_new_tokens", "3", "--split", "validation"]
    assert exit_code(lambda: eval_responses.main(["generate", *told])) == 0


def command(sft: Path, pairs: Path, folder: Path, **changes: str) -> list[str]:
    told = {"model_name_or_path": str(sft), "pairs": str(pairs), "output_dir": str(folder)}
    return ["train_dpo.py", *words(QUICK | told | changes)]


@pytest.mark.slow
def test_two_processes_equal_one(sft: Path, pairs: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    changes = {"global_batch_size": "4", "learning_rate": "1e-3"}
    told = QUICK | {"model_name_or_path": str(sft), "pairs": str(pairs)} | changes
    told.pop("per_device_train_batch_size")
    launch = [str(Path(sys.executable).parent / "accelerate"), "launch", "--cpu", "--num_processes"]
    for number, folder in (("1", one), ("2", two)):
        program = ["train_dpo.py", *words(told | {"output_dir": str(folder)})]
        done = subprocess.run(
            [*launch, number, *program],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    for name, value in load_file(one / "model.safetensors").items():
        torch.testing.assert_close(load_file(two / "model.safetensors")[name], value, rtol=0, atol=1e-5)
    for name in ("loss", "eval_loss", "rewards/margins", "eval_rewards/accuracies"):
        assert logs(two, name) == pytest.approx(logs(one, name), abs=1e-5)


@pytest.mark.slow
def test_the_same_command_continues_exactly_after_a_kill(sft: Path, pairs: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    changes = {"num_train_epochs": "30", "save_steps": "5", "eval_steps": "50"}
    assert run(sft, pairs, whole, **changes) == 0
    program = [sys.executable, *command(sft, pairs, killed, **changes)]
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(program, cwd=ROOT, env=variables, stdout=subprocess.DEVNULL)
    while not (killed / "checkpoint-40").is_dir():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(program, cwd=ROOT, env=variables, check=True, stdout=subprocess.DEVNULL)
    for name, value in load_file(whole / "model.safetensors").items():
        torch.testing.assert_close(load_file(killed / "model.safetensors")[name], value, rtol=0, atol=1e-6)
    assert sorted(logs(killed)) == sorted(logs(whole))
