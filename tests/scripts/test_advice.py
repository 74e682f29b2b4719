"""Following an error's advice leads to a run."""

from pathlib import Path

import pytest

import train_sft
from faults.harness import write_config
from heed.errors import exit_code
from world.short_run import run


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("advice"))


ADVICE = {
    "--split_shares 1,0,0": [
        ("set eval_strategy: no", "--split_shares 1,0,0 --eval_strategy no --sample_max_new_tokens 0"),
        ("or give it a share (split_shares)", "--split_shares 0.8,0.1,0.1"),
    ],
    "--split_shares 0.9,0,0.1 --compare_with_base true": [
        ("give some with data or split_shares", "--split_shares 0.8,0.1,0.1 --compare_with_base true"),
    ],
    "--lora_r 4": [("it works with use_peft: true", "--lora_r 4 --use_peft true")],
    "--eval_strategy no --early_stopping_patience 2": [
        ("it works with eval_strategy other than no", "--eval_strategy epoch --early_stopping_patience 2")
    ],
    "--max_length 300": [("but the model has 256 positions", "--max_length 256")],
    "--tokens_per_batch 64 --per_device_train_batch_size 4": [("keep one of them", "--tokens_per_batch 64")],
    "--tokens_per_batch 64 --batching padded": [
        ("set batching: flat", "--tokens_per_batch 64 --batching flat"),
        ("or per_device_train_batch_size", "--batching padded --per_device_train_batch_size 2"),
    ],
    "--batching flat --attn_implementation eager": [
        ("or set batching: padded", "--attn_implementation eager --batching padded"),
    ],
    "--train_sampling_strategy batch_rebalance": [
        (
            "choose from random, group_by_length, group_by_prefix, sequential",
            "--train_sampling_strategy group_by_length",
        ),
    ],
    "--lr_scheduler_type constant --warmup_steps 2": [
        ("such as constant_with_warmup", "--lr_scheduler_type constant_with_warmup --warmup_steps 2"),
    ],
    "--lr_scheduler_type cosine_with_min_lr": [
        ("One of min_lr", '--lr_scheduler_type cosine_with_min_lr --lr_scheduler_kwargs {"min_lr":0.00001}'),
    ],
    "--optim lomo": [("choose another, such as adamw_torch", "--optim adamw_torch")],
    "--optim adamw_tork": [("did you mean adamw_torch", "--optim adamw_torch")],
    "--learning_rat 1e-3": [("did you mean learning_rate", "--learning_rate 1e-3")],
    "--resume_from_checkpoint true": [("resume: auto | never | PATH does it", "--resume never")],
    "--global_batch_size 8 --gradient_accumulation_steps 2": [("keep one of them", "--global_batch_size 8")],
}


@pytest.mark.parametrize("words", ADVICE)
def test_advice_before_the_first_step_is_right(config: Path, capsys: pytest.CaptureFixture[str], words: str) -> None:
    assert run(config, *words.split(), "--dry-run") == 2
    said = capsys.readouterr().err
    for advice, followed in ADVICE[words]:
        assert advice in said
        assert run(config, *followed.split(), "--dry-run") == 0, capsys.readouterr().err


def test_the_number_that_a_batch_of_tokens_is_to_be_raised_to_suffices(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(config, "--tokens_per_batch", "20", "--dry-run") == 2
    number = capsys.readouterr().err.split("raise it to ")[1].split()[0].rstrip(".,;")
    assert run(config, "--tokens_per_batch", number, "--dry-run") == 0


def test_advice_for_a_folder_with_another_run_is_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    few = ("--max_steps", "1", "--eval_strategy", "no", "--preflight", "quick")
    assert run(config, *few) == 0
    assert run(config, *few, "--seed", "7") == 2
    said = capsys.readouterr().err
    assert (
        "  seed: 42 then, 7 now\nSet them back, choose another output_dir, start over with overwrite_output_dir" in said
    )
    assert run(config, *few) == 0  # set back
    assert run(config, *few, "--seed", "7", "--allow_changed", "seed") == 0
    assert run(config, *few, "--seed", "8", "--overwrite_output_dir", "true") == 0
    other = ["--config", str(config), "--output_dir", str(tmp_path / "other"), *few, "--seed", "9"]
    assert exit_code(lambda: train_sft.main(other)) == 0
    assert run(config, *few, "--seed", "8", "--resume", "never") == 2
    assert (
        "contains an earlier run; choose another folder, set resume: auto to continue it, or" in capsys.readouterr().err
    )
    assert run(config, *few, "--seed", "8", "--resume", "auto") == 0
    assert "is finished; overwrite_output_dir: true starts over" in capsys.readouterr().out
