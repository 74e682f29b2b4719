"""What a user can mend, said in one sentence: the place, the value and the way out."""

import errno
import signal
import sys
from collections.abc import Callable

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class UserError(ValueError):
    """Bad input. The scripts print its message alone, without a traceback, and exit with code 2."""


class Stopped(BaseException):
    """A signal asked the run to stop, and it has. No `except Exception` of a library may hold that up."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_code(main: Callable[[], None]) -> int:
    """Run a script's main; 0 when it finished, 2 when the input was at fault, 128 + n after signal n."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        print(f"error: no space is left for {error.filename or 'a file'}; free some", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Stopped as stopped:
        print(f"stopped by {stopped}", file=sys.stderr)
        return 128 + stopped.number
    return 0
