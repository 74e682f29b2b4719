"""What a user can fix, said in one sentence: the place, the value and the way out."""

import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from heed.saying import guarded_output

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# As torch, its backends, oneDNN, Python and the loader say it; torch.OutOfMemoryError is a RuntimeError too.
OUT_OF_MEMORY = re.compile(
    "out of memory|can't allocate memory|CUBLAS_STATUS_ALLOC_FAILED|bad_alloc|can't start new thread"
    "|failed to map segment from shared object|could not create a primitive$"
)


class UserError(ValueError):
    """Bad input. The scripts print its message alone, without a traceback, and exit with code 2."""


class Stopped(BaseException):
    """A signal asked the run to stop, and it has. No `except Exception` of a library may stop that."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_code(main: Callable[[], None]) -> int:
    """Run a script's main; 0 when it finished, 2 when the input was at fault, 128 + n after signal n."""
    with guarded_output():
        try:
            check_surroundings(sys.argv)
            main()
            sys.stdout.flush()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except Stopped as stopped:
            print(f"stopped by {stopped}", file=sys.stderr)
            return 128 + stopped.number
        except Exception as error:
            if (sentence := shortage(error)) is None:
                traceback.print_exc()  # Python would print it past the guard
                return 1
            print(f"error: {sentence}", file=sys.stderr)
            return 2
    return 0


def shortage(error: Exception) -> str | None:
    """What the machine has too little of, where that is the error."""
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return f"no space is left for {error.filename or 'a file'}; free some"
    if is_out_of_memory(error):
        return f"memory ran out ({reason_of(error)}); free some, and give the same command again"
    return None


def reason_of(error: BaseException) -> str:
    """What an error says, on one line; its type where it says nothing."""
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextmanager
def written(path: Path) -> Iterator[None]:
    """A full disk names what was being written, which the system does not."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    said = isinstance(error, RuntimeError | ImportError) and OUT_OF_MEMORY.search(str(error))
    named = type(error).__name__ == "OutOfMemoryError"  # torch's own, known by its name: nothing here imports torch
    return isinstance(error, MemoryError) or named or bool(said)


def check_surroundings(arguments: Sequence[str]) -> None:
    """What libraries would trip over much later: a working folder that was deleted, a name that JSON cannot contain.

    Raises UserError.
    """
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise UserError("the working folder has been deleted; change into one that exists") from error
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{argument!r} is not UTF-8; rename what it names") from error
