# /// script
# requires-python = ">=3.11,<3.13"
# dependencies = ["heed @ file:///code/heed-0.1.0-py3-none-any.whl"]
#
# [tool.hf-jobs]
# flavor = "t4-small"
# timeout = "6h"
# secrets = ["HF_TOKEN"]
# volumes = ["./dist:/code"]
# ///
"""Train on a machine whose disk goes with the job: what the run leaves is kept in a folder that stays.

    python -m jobs.train KEPT --config my.yaml ...

KEPT is a folder on a mounted bucket; the rest is for train_sft.py, whose --output_dir is runs/ and KEPT's name. What is
in KEPT is taken back first, so the same command continues a job that was cut off. The run itself is on the local disk:
buckets have no locks, and nothing in them can be appended to. Every 20 seconds what has changed is copied.
"""

import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from heed.errors import UserError, exit_code
from heed.runs.checkpoints import STAGING
from heed.shipped import SHIPPED

SECONDS = 20.0
PART = ".part"  # how the name of a file ends that is being written


def main(arguments: Sequence[str]) -> None:
    """Ends as the training ends."""
    if not arguments or arguments[0].startswith("-"):
        raise UserError("say first where the run is to be kept: python -m jobs.train KEPT --config my.yaml ...")
    kept = Path(arguments[0])
    run = Path("runs") / kept.name
    copied = take_back(kept, run)
    words = [sys.executable, str(SHIPPED / "train_sft.py"), *arguments[1:], "--output_dir", str(run)]
    training = subprocess.Popen(words)
    for number in (signal.SIGTERM, signal.SIGINT):  # it ends its step and writes a checkpoint
        signal.signal(number, lambda number, frame: training.send_signal(number))
    while training.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            training.wait(SECONDS)
        try:
            keep(run, kept, copied)
        except OSError as error:
            if training.poll() is not None:
                raise UserError(f"{run} is not all in {kept} ({error}); give the command again here") from error
            print(f"kept      WARNING: not all of {run}, it is tried again ({error})", flush=True)
    sys.exit(training.returncode)


def take_back(kept: Path, run: Path) -> dict[Path, int]:
    """What an earlier job has left, unless its disk is still there; gives what `keep` need not copy again."""
    if run.exists() or not kept.is_dir():
        return {}
    shutil.copytree(kept, run)
    return {path: path.stat().st_mtime_ns for path in lasting(run)}


def keep(run: Path, kept: Path, copied: dict[Path, int]) -> None:
    """Copy what has changed, then delete what was gone before: a checkpoint is whole there before an older one goes.

    `copied` says when each file was changed that was copied last.
    """
    there = sorted(lasting(run))
    for path in there:
        with suppress(FileNotFoundError):  # it is gone meanwhile
            changed = path.stat().st_mtime_ns
            if copied.get(path) != changed:
                copy = kept / path.relative_to(run)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
                copied[path] = changed
    names = {path.relative_to(run) for path in there}
    for copy in lasting(kept):
        if copy.relative_to(kept) not in names:
            copy.unlink()
            with suppress(OSError):  # other files are in it
                copy.parent.rmdir()


def lasting(folder: Path) -> list[Path]:
    """The files in a folder but for those that are being written."""
    names = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(PART))
    return [path for path in names if STAGING not in path.parts]


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
