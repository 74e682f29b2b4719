"""SIGTERM, SIGINT and SIGUSR1: a run that is asked to stop does so at the end of a step, with a checkpoint."""

import ctypes
import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from heed import processes
from heed.errors import Stopped

WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# Launchers pass on a signal that a process group or Slurm has already sent to everyone: one request, not two.
REPEATS = 3.0
LAUNCHED_BY = ("TORCHELASTIC_RUN_ID", "LOCAL_RANK", "ACCELERATE_MIXED_PRECISION")  # set by torchrun, accelerate launch
PR_SET_PDEATHSIG = 1


class StopSignals:
    """While entered, it notes a first signal; a later one of the same kind ends the process at once.

    Outside the training itself there is no step to wait for: `Stopped` is raised on the spot.
    """

    def __init__(self) -> None:
        self.received = 0
        self.in_training = False
        self.process = os.getpid()
        self.before: dict[int, Any] = {}
        self.timer: threading.Timer | None = None

    def __enter__(self) -> "StopSignals":
        for number in WATCHED:
            if signal.getsignal(number) is not signal.SIG_IGN:  # a shell lets jobs in the background ignore Ctrl-C
                self.before[number] = signal.signal(number, self.note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.timer is not None:
            self.timer.cancel()
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a loader's worker, forked with this handler
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return  # Ctrl-C reaches workers too; the training still needs them for its last step
        if self.received:
            return
        self.received = number
        # Through libc: Python would use its main thread, which may wait in a library for ever.
        self.timer = threading.Timer(REPEATS, ctypes.CDLL(None).signal, (number, None))
        self.timer.daemon = True
        self.timer.start()
        if not self.in_training:
            raise Stopped(number)


class GracefulStop(TrainerCallback):
    """Saves and ends the training in all processes together, after the step in which any of them was asked to stop.

    Put it after callbacks that ask for evaluations: this checkpoint is written at a step that nobody chose, so it is
    not scored, and a run resumed from it has the same evaluations as one that was never stopped.
    """

    def __init__(self, signals: StopSignals) -> None:
        self.signals = signals
        self.number = 0
        self.unplanned = False
        """Whether a checkpoint is being written only because of the signal."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.signals.in_training = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if control.should_training_stop:  # it ends here anyway
            return
        self.number = processes.largest(self.signals.received)
        if self.number:
            self.unplanned = not control.should_save
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.number:
            raise Stopped(self.number)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.signals.in_training = False


def die_with_launcher() -> None:
    """Have Linux send SIGTERM when a launcher dies: a killed one leaves its workers training, unseen.

    `accelerate launch` with one process does not even pass on its own SIGTERM.
    """
    if sys.platform != "linux" or not any(name in os.environ for name in LAUNCHED_BY):
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:  # it died meanwhile
        os.kill(os.getpid(), signal.SIGTERM)
