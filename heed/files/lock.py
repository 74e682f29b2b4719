"""One writer for each run folder."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from heed.errors import UserError
from heed.saying import Say

LOCK_FILE = ".run.lock"
PATIENCE = 30.0  # seconds; the workers of a killed launcher end a step and write a checkpoint before they go
SAY_AFTER = 1.0


@contextmanager
def locked(folder: Path, say: Say = print) -> Iterator[None]:
    """Hold the folder. Raises UserError with the other's process and host when somebody else does.

    The lock is the process's own (lockf, not flock): no worker forked from it can keep it. It ends with the process,
    however that ends. The file stays.
    """
    path = folder / LOCK_FILE
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"output_dir: {folder} cannot be written to ({error.strerror})") from error
    with file:
        began, said = time.monotonic(), False
        while not try_to_lock(file.fileno()):
            waited = time.monotonic() - began
            file.seek(0)
            holder = file.read().strip() or "another process"
            if waited > PATIENCE:
                raise UserError(f"output_dir: {folder} is in use by {holder}; wait for it, or choose another folder")
            if waited > SAY_AFTER and not said:
                said = True
                say(f"waiting up to {PATIENCE:.0f} s for {holder}, which uses {folder}")
            time.sleep(0.05)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def wait_for_lock(descriptor: int) -> None:
    fcntl.lockf(descriptor, fcntl.LOCK_EX)


def try_to_lock(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
