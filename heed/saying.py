"""How anything tells the person who started it what it found."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

Say = Callable[[str], object]


def count(number: int, what: str, many: str | None = None) -> str:
    """1 row, 2,000 rows; `many` where an s does not do."""
    return f"{number:,} {what if number == 1 else many or what + 's'}"


def writable(text: str) -> str:
    """Half a surrogate pair, which a server's JSON can hold and UTF-8 cannot, becomes a question mark."""
    return text.encode(errors="replace").decode()


class Unbroken:
    """A stream whose reader may go away (`| head`): what is said after that is lost, and the work is not."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except BrokenPipeError:
            self.say_no_more()
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except BrokenPipeError:
            self.say_no_more()

    def say_no_more(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def unbroken_output() -> Iterator[None]:
    """Inside, nothing ends because nobody reads what is printed any more."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Unbroken(sys.stdout), Unbroken(sys.stderr)
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr = before
