import os
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist

from faults.harness import Forks, environment, free_port, wait, write_config
from heed import processes
from heed.errors import UserError

LAUNCHED = ("WORLD_SIZE", "RANK", "SLURM_STEP_NUM_TASKS")


@pytest.mark.parametrize(
    ("variables", "wanted", "message"),
    [
        ({}, 2, "processes: 2, but the launcher started 1; with `accelerate launch` on CPUs take"),
        ({"WORLD_SIZE": "4", "RANK": "1"}, 2, "processes: 2, but the launcher started 4"),
        ({"WORLD_SIZE": "2"}, None, "has WORLD_SIZE but no RANK; start with torchrun"),
        ({"RANK": "2"}, None, "has RANK but no WORLD_SIZE; start with torchrun"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, None, "rank 2 of 2; ranks go from 0 to 1"),
        ({"SLURM_STEP_NUM_TASKS": "8"}, None, "srun started 8 copies that know nothing of each other"),
    ],
)
def test_a_launch_that_is_not_as_asked_is_refused(
    variables: dict[str, str], wanted: int | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    processes.check_launch(1)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        processes.check_launch(wanted)


def slow_and_unlike(variables: Mapping[str, str], folder: Path) -> None:
    """In a forked process: take turns at work that is longer than a collective may take; then differ in the data."""
    os.environ.update(variables)
    dist.init_process_group("gloo", timeout=timedelta(seconds=2))
    rank, order = dist.get_rank(), folder / "order"
    with processes.in_turns():
        with order.open("a") as file:
            file.write(f"{rank} begins\n")
        if rank == 0:
            time.sleep(3)
        with order.open("a") as file:
            file.write(f"{rank} ends\n")
    processes.check_alike({"data": "same", "python": "3.11"})
    try:
        processes.check_alike({"data": f"rows of {rank}", "python": "3.11"})
    except UserError as error:
        (folder / f"refusal-{rank}").write_text(str(error))


def test_long_work_is_done_in_turns_and_unlike_machines_are_reported_everywhere(tmp_path: Path) -> None:
    forks, port = Forks(), free_port()
    running = [forks.start(slow_and_unlike, environment(rank, 2, port), tmp_path) for rank in range(2)]
    assert wait(running) == [0, 0]
    assert (tmp_path / "order").read_text().splitlines() == ["0 begins", "0 ends", "1 begins", "1 ends"]
    refusals = [(tmp_path / f"refusal-{rank}").read_text() for rank in range(2)]
    assert refusals[0] == refusals[1]
    assert "differs from process 0 on" in refusals[0]
    assert "in data (data: rows of 1 there, rows of 0 here)" in refusals[0]


@pytest.mark.slow
def test_a_process_that_does_not_find_the_others_says_what_helps(tmp_path: Path) -> None:
    config, log = write_config(tmp_path), tmp_path / "log"
    lonely = Forks().start(lone_training, config, log)
    assert wait([lonely]) == [2], log.read_text()
    said = log.read_text()
    assert "process 1 of 2 did not find the others at 127.0.0.1:" in said
    assert "--local-addr ADDRESS" in said


def lone_training(config: Path, log: Path) -> None:
    from faults.harness import script

    arguments = ["--config", str(config), "--output_dir", str(config.parent / "run"), "--ddp_timeout", "2"]
    script("train_sft", arguments, environment(1, 2, free_port()), log, None)
