"""FSDP2 and DeepSpeed in processes on a CPU: accelerate alone silently ignores both there.

For tests only. That GPU runs behave the same is not shown.
"""

import os
from importlib.util import find_spec
from typing import Any

from world.small_world import ROOT


def prepare(config: str) -> None:
    """What `accelerate launch --config_file configs/accelerate/CONFIG.yaml` does to the processes it starts."""
    from accelerate.commands import launch
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    world = os.environ["WORLD_SIZE"]
    path = ROOT / "configs" / "accelerate" / f"{config}.yaml"
    words = ["--config_file", str(path), "--num_processes", world, "train_sft.py"]
    arguments = launch.launch_command_parser().parse_args(words)
    arguments, from_file, _ = launch._validate_launch_command(arguments)
    if config.startswith("zero"):
        arguments.deepspeed_fields_from_accelerate_config = ",".join(from_file.deepspeed_config)
        os.environ.update(prepare_deepspeed_cmd_env(arguments)[1])
        deepspeed_over_gloo()
    else:
        os.environ.update(prepare_multi_gpu_env(arguments))
        if config.startswith("fsdp"):
            fsdp_over_gloo()


def fsdp_over_gloo() -> None:
    import accelerate.state as state
    from accelerate.utils import DistributedType

    original = state.AcceleratorState.__init__

    def init(self: Any, *arguments: Any, **more: Any) -> None:
        state.PartialState(True)
        shared = state.PartialState._shared_state
        if shared["distributed_type"] == DistributedType.MULTI_CPU:
            shared["distributed_type"] = DistributedType.MULTI_GPU
        original(self, *arguments, **more)

    state.AcceleratorState.__init__ = init


def deepspeed_over_gloo() -> None:
    import accelerate.state as state
    import torch
    from accelerate.utils import DistributedType

    os.environ["DS_ACCELERATOR"] = "cpu"
    original = state.PartialState._prepare_backend

    def backend(self: Any, *arguments: Any, **more: Any) -> Any:
        name, kind = original(self, *arguments, **more)
        return ("gloo", DistributedType.MULTI_GPU) if name is None else (name, kind)

    def device(self: Any) -> None:
        self.device = torch.device("cpu")

    state.PartialState._prepare_backend = backend
    state.PartialState.set_device = device


def has_deepspeed() -> bool:
    return find_spec("deepspeed") is not None
