"""Real trainings in processes that can be killed: forked from one that has imported everything, so they are cheap."""

import hashlib
import json
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from world.small_world import ROOT, gpt2, save_model

PRELOADED = [
    "torch",
    "datasets",
    "train_sft",
    "inspect_data",
    "eval_responses",
    "heed.training.plan",
    "heed.training.trainer",
    "heed.training.preflight",
    "heed.runs.start",
    "heed.evaluation.run",
    "heed.answers.generation",
    "heed.answers.subjects",
    "faults.harness",
    "faults.frozen",
]
TIMEOUT = 600.0
CONFIG = """\
prompt: alpaca_short
per_device_train_batch_size: 4
learning_rate: 1.0e-2
num_train_epochs: 3
eval_steps: 7
save_steps: 2
save_total_limit: 3
logging_steps: 3
sample_max_new_tokens: 3
dropout: 0.1
use_cpu: true
bf16: false
disable_tqdm: true
"""


def write_config(folder: Path, *, rows: int = 48, text: str = "", **sizes: int) -> Path:
    """A model, rows and a config in `folder`; the run goes where --output_dir says."""
    model = save_model(folder / "base", gpt2(**sizes))
    data = folder / "rows.json"
    words = ["yes", "no", "a longer word", "quite a few words that take more room"]
    values = [{"instruction": f"Say number {row}.", "output": f"{words[row % 4]} {row}"} for row in range(rows)]
    data.write_text(json.dumps(values))
    path = folder / "run.yaml"
    split = "" if "split:" in text else "split: position\n"
    path.write_text(f"{CONFIG}model_name_or_path: {model}\ndata: {data}\n{split}{text}")
    return path


class Forks:
    """Starts trainings as separate processes."""

    def __init__(self) -> None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)

    def start(self, function: Callable[..., Any], *arguments: Any) -> BaseProcess:
        process = self.context.Process(target=function, args=arguments)
        process.start()
        return process

    def training(
        self,
        config: Path,
        output_dir: Path,
        *more: str,
        world: int = 1,
        log: Path,
        prepare: Callable[[], Any] | None = None,
    ) -> list[BaseProcess]:
        """`python train_sft.py ...` on `world` processes; what they print is appended to `log`."""
        arguments = ["--config", str(config), "--output_dir", str(output_dir), *more]
        port = free_port()
        return [
            self.start(script, "train_sft", arguments, environment(rank, world, port), log, prepare)
            for rank in range(world)
        ]


def environment(rank: int, world: int, port: int) -> dict[str, str]:
    if world == 1:
        return {}
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1"} | {name: str(value) for name, value in names.items()}


def script(
    name: str, arguments: Sequence[str], variables: Mapping[str, str], log: Path, prepare: Callable[[], Any] | None
) -> None:
    """In the forked process: the script, with its output in a file."""
    from heed.errors import exit_code

    module = import_module(name)

    os.chdir(ROOT)
    os.environ.update(variables)
    with log.open("a") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    sys.argv = [f"{name}.py", *arguments]
    if prepare is not None:
        prepare()
    sys.exit(exit_code(lambda: module.main(arguments)))


def wait(processes: Sequence[BaseProcess], timeout: float = TIMEOUT) -> list[int | None]:
    """Exit codes; None for a process that hangs, which is killed."""
    until = time.monotonic() + timeout
    codes = []
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        codes.append(process.exitcode)
    kill(processes)
    return codes


def kill(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()


def wait_until(condition: Callable[[], bool], processes: Sequence[BaseProcess], timeout: float = TIMEOUT) -> None:
    """Until something is seen on the disk. Raises AssertionError when the processes end before."""
    until = time.monotonic() + timeout
    while not condition():
        assert any(process.is_alive() for process in processes), "the training ended before"
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.005)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def weights(folder: Path) -> str:
    """SHA-256 of the weights that a finished run has saved."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


LOGGED = ("loss", "grad_norm", "learning_rate", "eval_loss", "num_input_tokens_seen")


def logged(folder: Path) -> dict[str, dict[int, float]]:
    """Every logged number except times, by step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {name: {line["step"]: line[name] for line in lines if name in line} for name in LOGGED}


def state(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run_state.json").read_text())
    return found
