"""A run folder that another process has locked."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from world.small_world import ROOT

HOLDER = """
import sys, pathlib
from heed.files.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


@contextmanager
def held_by_another(folder: Path) -> Iterator[int]:
    """The process that has locked the folder; it is killed at the end, and the dead hold nothing."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        yield holder.pid
        holder.kill()
