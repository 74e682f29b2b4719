"""A machine dies: the others continue from the last checkpoint, with the same rows in every step."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from faults.harness import Forks, free_port, logged, state, wait, write_config
from world.small_world import ROOT

RUN = ("--global_batch_size", "8", "--dropout", "0", "--logging_steps", "1", "--save_steps", "2")
# Short, so that the survivor does not wait long for the dead one.
RENDEZVOUS = "keep_alive_interval=1,keep_alive_max_attempt=2,last_call_timeout=1,read_timeout=20"


def agent(config: Path, output_dir: Path, port: int, *, host: bool, log: Path) -> subprocess.Popen[bytes]:
    """torchrun as it is started on each machine; here both are this one."""
    words = f"--nnodes 1:2 --nproc-per-node 1 --max-restarts 3 --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:{port}"
    words += f" --rdzv-id run --rdzv-conf is_host={int(host)},{RENDEZVOUS} --local-addr 127.0.0.1 train_sft.py"
    script = ["--config", str(config), "--output_dir", str(output_dir), *RUN]
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *words.split(), *script],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=file,
        )


def workers(agent: subprocess.Popen[bytes]) -> list[int]:
    return [int(child) for child in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="children are looked up in /proc")
def test_a_run_outlives_one_of_its_two_machines(tmp_path: Path) -> None:
    config, run, log = write_config(tmp_path), tmp_path / "run", tmp_path / "log"
    forks, port = Forks(), free_port()
    assert wait(forks.training(config, tmp_path / "alone", *RUN, log=log)) == [0], log.read_text()
    first = agent(config, run, port, host=True, log=tmp_path / "first")
    second = agent(config, run, port, host=False, log=tmp_path / "second")
    try:
        until = time.monotonic() + 240
        while not (run / "checkpoint-4").is_dir():
            assert first.poll() is None and time.monotonic() < until, (tmp_path / "first").read_text()
            time.sleep(0.005)
        killed = time.monotonic()
        for process in (second.pid, *workers(second)):
            os.kill(process, signal.SIGKILL)
        assert first.wait(timeout=240) == 0, (tmp_path / "first").read_text()
        took = time.monotonic() - killed
    finally:
        for each in (first, second):
            each.kill()
            each.wait()
    assert state(run)["status"] == "done"
    said = (tmp_path / "first").read_text()
    assert "2 processes wrote it, 1 continue: each step has the same rows" in said
    ours, theirs = logged(tmp_path / "alone"), logged(run)
    for name in ("loss", "eval_loss"):
        assert theirs[name].keys() == ours[name].keys()
        worst = max(abs(theirs[name][step] / ours[name][step] - 1) for step in ours[name])
        assert math.isfinite(worst) and worst < 1e-6, (name, worst)
    assert (run / "flight.jsonl").read_text() == (tmp_path / "alone" / "flight.jsonl").read_text()
    print(f"done {took:.0f} s after the kill")
