"""A folder that appears only when it is complete."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from heed.errors import UserError, written
from heed.files.hashes import sync
from heed.files.lock import try_to_lock

LOCK_FILE = ".lock"


def refuse_used(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty, so it will not be touched; choose another folder")


@contextmanager
def whole_folder(folder: Path, *, key: str) -> Iterator[Path]:
    """An empty folder beside `folder` that nobody else writes to, and that is renamed to it in the end.

    After an error nothing of it is left, and what a killed process left is deleted by the next. Raises UserError, which
    begins with the `key`, when it cannot be made or another process writes it.
    """
    staged = folder.with_name(folder.name + ".part")
    try:
        staged.mkdir(parents=True, exist_ok=True)
        lock = (staged / LOCK_FILE).open("a")
    except OSError as error:
        raise UserError(f"{key}: {folder} cannot be made ({error.strerror})") from error
    with lock:
        if not try_to_lock(lock.fileno()):
            raise UserError(f"{key}: another process is writing {folder}; wait for it, or choose another folder")
        try:
            for left in staged.iterdir():  # by a killed process
                if left.is_dir():
                    shutil.rmtree(left)
                elif left.name != LOCK_FILE:
                    left.unlink()
            with written(folder):
                yield staged
            (staged / LOCK_FILE).unlink()
            sync(staged)
            os.replace(staged, folder)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
