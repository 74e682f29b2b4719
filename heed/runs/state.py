"""How a run is doing and how it went: run_state.json for schedulers, run.json for people, both written only here."""

import os
import shlex
import socket
import sys
import time
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from heed import __version__
from heed.errors import DISK_FULL, Stopped, UserError
from heed.files import run_folder
from heed.runs.checkpoints import Checkpoint

Status = Literal["running", "preempted", "failed", "done"]
EARLIER = ("command", "started", "finished", "seconds", "status", "reason", "resumed_from", "processes")


class RunRecord(TrainerCallback):
    """Keeps both files up to date: at the start, at every log and checkpoint, and at the end, however that comes.

    `with RunRecord(...) as record:` is `running` inside, and afterwards `done`, `preempted` or `failed` with a reason.
    `running` may also be the last word of a process that was killed; its lock is free then. `facts` are what run.json
    says beside that; add to them until the end.
    """

    def __init__(self, folder: Path, checkpoint: Checkpoint | None, facts: dict[str, Any], *, writes: bool) -> None:
        """`checkpoint` is what the run continues from; only the process that `writes` touches the files."""
        self.folder, self.writes = folder, writes
        self.step = checkpoint.step if checkpoint else 0
        self.checkpoint = checkpoint.path.name if checkpoint else None
        self.status: Status = "running"
        self.reason = ""
        self.began = time.monotonic()
        self.facts: dict[str, Any] = {
            "status": self.status,
            "heed": __version__,
            "command": shlex.join(sys.argv),
            "started": run_folder.now(),
            "versions": run_folder.versions(),
            "resumed_from": str(checkpoint.path) if checkpoint else None,
            "earlier": earlier_starts(folder) if checkpoint else [],
        } | facts

    def __enter__(self) -> "RunRecord":
        self.write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.status = "done"
        else:
            self.status = "preempted" if isinstance(error, Stopped | KeyboardInterrupt) else "failed"
            self.reason = str(error) if isinstance(error, UserError | Stopped) else repr(error)
            # A loss that is not finite is noticed at the next log; the step that it belongs to knows better.
            self.step = getattr(error.__cause__, "step", self.step)
        seconds = round(time.monotonic() - self.began, 1)
        whole = seconds + sum(each.get("seconds") or 0.0 for each in self.facts["earlier"])
        self.facts |= {"finished": run_folder.now(), "seconds": seconds, "seconds_of_all_starts": round(whole, 1)}
        try:
            self.write()
        except OSError as full:
            if error is None or full.errno not in DISK_FULL:
                raise
            print(f"{self.folder}: no space is left to write down how the run ended", file=sys.stderr)

    def write(self) -> None:
        self.facts |= {"status": self.status} | ({"reason": self.reason} if self.reason else {})
        if self.writes:
            self.write_state()
            run_folder.write_json(self.folder / run_folder.RUN_FILE, self.facts)

    def write_state(self) -> None:
        if not self.writes:
            return
        state = {
            "status": self.status,
            "step": self.step,
            "checkpoint": self.checkpoint,
            "reason": self.reason,
            "process": os.getpid(),
            "host": socket.gethostname(),
            "written": run_folder.now(),
        }
        run_folder.write_json(self.folder / run_folder.STATE_FILE, state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.step = state.global_step

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.write_state()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.checkpoint = f"checkpoint-{state.global_step}"
        self.write_state()


def earlier_starts(folder: Path) -> list[dict[str, Any]]:
    """How the run was started before, oldest first. A start that was killed lasted until its last sign of life."""
    path = folder / run_folder.RUN_FILE
    if not path.is_file():
        return []
    last = run_folder.read_json(path)
    earlier: list[dict[str, Any]] = last.get("earlier", [])
    start = {name: last[name] for name in EARLIER if name in last}
    state = folder / run_folder.STATE_FILE
    if "seconds" not in start and "started" in start and state.is_file():
        seen = datetime.fromisoformat(run_folder.read_json(state)["written"])
        start["seconds"] = max(0.0, (seen - datetime.fromisoformat(start["started"])).total_seconds())
    return [*earlier, start]


def add_facts(folder: Path, **facts: Any) -> None:
    """What became known about a run after it was done."""
    path = folder / run_folder.RUN_FILE
    run_folder.write_json(path, run_folder.read_json(path) | facts)
