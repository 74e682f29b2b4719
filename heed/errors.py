"""What a user can mend, said in one sentence: the place, the value and the way out."""

import sys
from collections.abc import Callable


class UserError(ValueError):
    """Bad input. The scripts print its message alone, without a traceback, and exit with code 2."""


def exit_code(main: Callable[[], None]) -> int:
    """Run a script's main; 0 when it finished, 2 when the input was at fault, 130 after Ctrl-C."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0
