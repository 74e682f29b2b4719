"""run_state.json: how a run stands, for schedulers and people; launchers hide a script's exit code."""

import os
import socket
from pathlib import Path
from typing import Any, Literal

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from heed.files import run_folder

Status = Literal["running", "preempted", "failed", "done"]


class RunState(TrainerCallback):
    """Keeps the file up to date: at the start, at every log and checkpoint, and at the end.

    `running` may also be the last word of a process that was killed; its lock (`run_lock`) is free then.
    """

    def __init__(self, folder: Path, *, writes: bool, step: int = 0) -> None:
        self.folder, self.writes = folder, writes
        self.step = step
        self.checkpoint: str | None = None

    def write(self, status: Status, reason: str = "") -> None:
        if not self.writes:
            return
        state = {
            "status": status,
            "step": self.step,
            "checkpoint": self.checkpoint,
            "reason": reason,
            "process": os.getpid(),
            "host": socket.gethostname(),
            "written": run_folder.now(),
        }
        run_folder.write_json(self.folder / run_folder.STATE_FILE, state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.step = state.global_step

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.write("running")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.checkpoint = f"checkpoint-{state.global_step}"
        self.write("running")
