"""One training, however it is cut up: the same losses and the same model from one process, several, and each engine."""

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from faults.harness import Forks, environment, free_port, logged, state, wait, write_config
from heed.files import run_folder
from heed.training.trainer import HeedTrainer
from world.engines import has_deepspeed, prepare
from world.small_world import gpt2
from world.training import arguments, collators, examples, gradients

CUTS = {"as one": (8, 1), "accumulated": (2, 4), "singly": (1, 8)}  # rows and micro-batches of a process
ENGINES = [
    "ddp",
    "fsdp2",
    *(
        pytest.param(name, marks=pytest.mark.skipif(not has_deepspeed(), reason="deepspeed is not installed"))
        for name in ("zero2", "zero3")
    ),
]
RUN = ("--global_batch_size", "8", "--dropout", "0", "--logging_steps", "1", "--max_steps", "6")


@pytest.fixture(scope="module")
def forks() -> Forks:
    return Forks()


def found_by(folder: Path, world: int) -> dict[str, torch.Tensor]:
    """The gradient of 8 rows, and the evaluation of 17, in float64, for each way to cut the rows up."""
    data, found = examples(8), {}
    for batches, collator in collators("response").items():
        if batches == "flat":
            continue
        for adapter in (False, True):
            for cut, (rows, accumulation) in CUTS.items():
                if accumulation % world and rows % world:
                    continue
                sizes: dict[str, Any] = {
                    "gradient_accumulation_steps": accumulation,
                    "per_device_train_batch_size": rows,
                }
                name = "gradient_accumulation_steps" if accumulation > 1 else "per_device_train_batch_size"
                sizes[name] //= world
                gradient = gradients(folder, data, collator, adapter=adapter, **sizes)
                found[f"{batches}, {'LoRA' if adapter else 'all weights'}, {cut}"] = gradient
        trainer = HeedTrainer(
            model=gpt2().double(), args=arguments(folder), eval_dataset=examples(17), data_collator=collator
        )
        metrics = trainer.evaluate()
        names = ("eval_loss", "eval_p_eos", "eval_premature_eos", "eval_rows", "eval_tokens")
        found[f"{batches}, evaluation"] = torch.tensor([metrics[name] for name in names], dtype=torch.float64)
    return found


def as_one_of(world: int, variables: Mapping[str, str], folder: Path) -> None:
    """In a forked process: write down what this process finds."""
    os.environ.update(variables)
    torch.save(found_by(folder, world), folder / f"found-{os.environ['RANK']}.pt")


def test_gradients_and_evaluation_of_two_processes_are_those_of_one(tmp_path: Path, forks: Forks) -> None:
    """All weights and LoRA, shared prefix and padded, as one batch, accumulated, and row by row."""
    port = free_port()
    running = [forks.start(as_one_of, 2, environment(rank, 2, port), tmp_path) for rank in range(2)]
    alone = found_by(tmp_path, 1)
    assert wait(running) == [0, 0]
    for rank in range(2):
        theirs = torch.load(tmp_path / f"found-{rank}.pt", weights_only=True)
        assert list(theirs) == list(alone)
        for name, found in theirs.items():
            whole = alone[name.rsplit(", ", 1)[0] + ", as one"] if "evaluation" not in name else alone[name]
            assert (found - whole).norm() / whole.norm() < 1e-12, name


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Path:
    """A folder with a config, and the runs `all weights` and `LoRA` of one process."""
    folder = tmp_path_factory.mktemp("alone")
    config, log = write_config(folder), folder / "log"
    both = [forks.training(config, folder / name, *RUN, *more, log=log) for name, more in KINDS.items()]
    assert [wait(each) for each in both] == [[0], [0]], log.read_text()
    return folder


KINDS = {"all weights": (), "LoRA": ("--use_peft", "true", "--lora_dropout", "0")}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_gives_the_losses_of_one_process_and_a_whole_model(
    tmp_path: Path, alone: Path, forks: Forks, engine: str, kind: str
) -> None:
    """Through the script, with the engine's config; then once more from a checkpoint in the middle."""
    run, log = tmp_path / "run", tmp_path / "log"
    start: Callable[..., Any] = partial(
        forks.training, alone / "run.yaml", world=2, log=log, prepare=partial(prepare, engine)
    )
    command = (*RUN, *KINDS[kind], "--per_device_train_batch_size", "2")
    assert wait(start(run, *command)) == [0, 0], log.read_text()
    assert state(run)["status"] == "done"
    ours, theirs = logged(alone / kind), logged(run)
    for name in ("loss", "eval_loss"):
        assert theirs[name].keys() == ours[name].keys()
        assert all(math.isclose(theirs[name][step], ours[name][step], rel_tol=1e-6) for step in ours[name])
    said = log.read_text()
    assert "loaded again, its logits differ by 0.0e+00" in said or "loaded again, every weight is as it was" in said
    name = "adapter_model.safetensors" if kind == "LoRA" else "model.safetensors"
    mine, saved = (load_file(folder / name) for folder in (alone / kind, run))
    assert mine.keys() == saved.keys()
    # One process sums in another order, and AdamW makes much of a small gradient's rounding.
    assert all((mine[key] - saved[key]).abs().max() < 3e-4 for key in mine)

    # What a kill after checkpoint-4 leaves; the same command continues to exactly the same weights.
    shutil.rmtree(run / "checkpoint-6")
    (run / name).unlink()
    record = json.loads((run / run_folder.RUN_FILE).read_text())
    run_folder.write_json(run / run_folder.RUN_FILE, record | {"status": "running"})
    assert wait(start(run, *command)) == [0, 0], log.read_text()
    assert "resume    from" in log.read_text()
    again = load_file(run / name)
    assert all(torch.equal(again[key], saved[key]) for key in saved)
    assert logged(run) == theirs


@pytest.mark.slow
def test_the_model_of_fsdp_is_that_of_its_last_checkpoint(tmp_path: Path, alone: Path, forks: Forks) -> None:
    """Shards on one side, a consolidated file on the other: the same, bit for bit."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    log = tmp_path / "log"
    running = forks.training(
        alone / "run.yaml", tmp_path / "run", *RUN, world=2, log=log, prepare=partial(prepare, "fsdp2")
    )
    assert wait(running) == [0, 0], log.read_text()
    dcp_to_torch_save(tmp_path / "run" / "checkpoint-6" / "pytorch_model_fsdp_0", tmp_path / "whole.pt")
    shards = torch.load(tmp_path / "whole.pt", weights_only=True)["model"]
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(tensor, shards[name]) for name, tensor in saved.items())
