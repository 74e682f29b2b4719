"""Files by their content, and content that is on the disk."""

import _thread
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from heed.errors import UserError

AT_ONCE = 16  # a busy disk takes as long to sync sixteen files as for one
PIECE = 2**24  # bytes; between two of them a thread waits until others let it run


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            piece = memoryview(bytearray(min(PIECE, path.stat().st_size or PIECE)))
            while size := file.readinto(piece):
                digest.update(piece[:size])
        return digest.hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def json_sha256(value: Any) -> str:
    """SHA-256 of a value as JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sync(path: Path) -> None:
    """Until this returns, what was written may only be in memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def of_each(names: Iterable[str], work: Callable[[str], str]) -> dict[str, str]:
    """What `work` makes of every name, several at once as far as threads are to be had.

    Not by a ThreadPoolExecutor: where memory is short it fails for a thread that cannot start, and waits for ever for
    one that dies as it starts. Here this thread works too, and waits only for what another one has taken up.
    """
    made: dict[str, Future[str]] = {name: Future() for name in names}
    left = deque(made)

    def take() -> None:
        with suppress(IndexError):
            while True:
                name = left.popleft()
                try:
                    made[name].set_result(work(name))
                except Exception as error:
                    made[name].set_exception(error)

    with suppress(RuntimeError):
        for _ in range(min(len(made), AT_ONCE) - 1):
            _thread.start_new_thread(take, ())
    take()
    return {name: future.result() for name, future in made.items()}
