"""configs/accelerate: read by accelerate's own loader, and without the slips it does not report."""

import json
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType

from world.small_world import ROOT

CONFIGS = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))
ENGINES = {
    "cpu_2proc": DistributedType.MULTI_GPU,
    "ddp": DistributedType.MULTI_GPU,
    "ddp_multinode": DistributedType.MULTI_GPU,
    "fsdp2": DistributedType.FSDP,
    "fsdp2_offload": DistributedType.FSDP,
    "single": DistributedType.NO,
    "zero2": DistributedType.DEEPSPEED,
    "zero3": DistributedType.DEEPSPEED,
}


def test_there_is_a_config_for_every_engine() -> None:
    assert [path.stem for path in CONFIGS] == sorted(ENGINES)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_the_config_and_precision_is_left_to_the_run(path: Path) -> None:
    config = load_config_from_file(str(path))

    assert config.distributed_type == ENGINES[path.stem]
    assert config.mixed_precision in (None, "no")  # a precision here would override the run's own


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_no_key_of_fsdp_is_misspelled_which_accelerate_would_ignore(path: Path) -> None:
    known = vars(launch_command_parser().parse_args(["script.py"]))

    assert set(load_config_from_file(str(path)).fsdp_config) <= set(known)


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_takes_its_sizes_from_the_run(stage: int) -> None:
    config = load_config_from_file(str(ROOT / "configs" / "accelerate" / f"zero{stage}.yaml"))
    deepspeed = json.loads((ROOT / config.deepspeed_config["deepspeed_config_file"]).read_text())

    assert deepspeed["zero_optimization"]["stage"] == stage
    sizes = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    assert [deepspeed[name] for name in sizes] == ["auto"] * 4
