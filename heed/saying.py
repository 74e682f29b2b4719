"""How Heed talks to the person who started it."""

import logging
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TextIO

Say = Callable[[str], object]
REDRAWN, REPEATED = 1.0, 30.0  # seconds between two drawings on a terminal, and between two lines elsewhere


# What steers a terminal or turns the reading around: control characters but tab and line ends, as bytes too, and the
# marks of writing direction. Joiners and variation selectors, which scripts and emoji need, are none of them.
STEERS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f\udc80-\udc9f"
STEERING = re.compile(rf"[{STEERS}]|\r(?!\n)")
BAR = re.compile(rf"\r[^\r\n{STEERS}]*\r?|(\x1b\[A)+")  # a line drawn again, as here and by tqdm, or one line up


def visible(text: str) -> str:
    """Text of rows, models and files for a terminal: what would steer it is shown, as \\x1b, and not obeyed."""
    return STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


class Painted(str):
    """Text in colors of Heed's own, which reach the terminal; what it quotes has been made visible."""

    __slots__ = ()

    def __str__(self) -> str:
        return self  # print() asks for it, and would pass on a plain string


class Detail(str):
    """What only --verbose shows: the reason of a choice, and what was tried without finding anything."""

    __slots__ = ()


def say(text: str) -> None:
    """Print what is not a detail, in place of a progress line."""
    if not isinstance(text, Detail):
        say_all(text)


def say_all(text: str) -> None:
    if Progress.shown is not None:
        Progress.shown.clear()
    print(text, flush=True)  # a pipe's reader would wait for a full buffer


def speaker(*, verbose: bool) -> Say:
    return say_all if verbose else say


class Progress:
    """How far long work has come: one line redrawn on a terminal, elsewhere a line every half a minute.

    There is one at a time: inside another one it shows nothing.
    """

    shown: ClassVar["Progress | None"] = None

    def __init__(self, what: str, total: int | None, unit: str = "rows") -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = self.first = 0
        self.began = self.told = time.monotonic()
        self.drawn = 0  # characters of the line on the terminal

    def __enter__(self) -> "Progress":
        if Progress.shown is None:
            Progress.shown = self
        return self

    def __exit__(self, *error: object) -> None:
        if Progress.shown is self:
            self.clear()
            Progress.shown = None

    def start(self, done: int = 0) -> None:
        """Time counts from here on; `done` was there before."""
        self.done = self.first = done
        self.began = time.monotonic()

    def update(self, number: int = 1) -> None:
        self.done += number
        on_terminal, now = sys.stderr.isatty(), time.monotonic()
        if Progress.shown is not self or now - self.told < (REDRAWN if on_terminal else REPEATED):
            return
        self.told = now
        if not on_terminal:
            print(self.text(), flush=True)
            return
        line = self.text()[: shutil.get_terminal_size().columns - 1]
        sys.stderr.write("\r" + line.ljust(self.drawn))
        sys.stderr.flush()
        self.drawn = len(line)

    def text(self) -> str:
        if self.total is None:
            return f"{self.what}: {count(self.done, self.unit, self.unit)}"
        new = self.done - self.first
        left = (self.total - self.done) * (time.monotonic() - self.began) / new if new else math.inf
        filled = round(20 * self.done / max(1, self.total))
        ending = f", {duration(max(10, left))} left" if math.isfinite(left) else ""  # nobody needs it nearer
        return f"{self.what} [{'#' * filled:.<20}] {self.done:,} of {self.total:,} {self.unit}{ending}"

    def clear(self) -> None:
        """Take the line away; it comes back with the next drawing, and not at once."""
        if self.drawn:
            sys.stderr.write("\r" + " " * self.drawn + "\r")
            sys.stderr.flush()
            self.drawn, self.told = 0, time.monotonic()


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.{int(seconds < 10)}f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def count(number: int, what: str, many: str | None = None) -> str:
    """1 row, 2,000 rows; `many` where an s is not enough."""
    return f"{number:,} {what if number == 1 else many or what + 's'}"


FEW_ROWS = 30  # of a test: below, a sentence says how little it tells


def few_rows(number: int) -> str:
    rows, points = count(number, "row"), 100 / number
    return f"a test of {rows} tells little: one answer more or less moves it by {points:.0f} of 100 points"


def writable(text: str) -> str:
    """Half a surrogate pair, which a server's JSON can contain and UTF-8 cannot, becomes a question mark."""
    return text.encode(errors="replace").decode()


class Guarded:
    """A stream to a person: no text steers the terminal; once the reader goes away (`| head`) what is said is lost, and
    the work is not."""

    def __init__(self, stream: TextIO, *, bars: bool) -> None:
        self.stream, self.bars = stream, bars

    def write(self, text: str) -> int:
        own = isinstance(text, Painted) or (self.bars and BAR.fullmatch(text))
        shown = text if own else visible(text)
        try:
            self.stream.write(shown)
        except UnicodeEncodeError:  # half a surrogate pair, or a terminal that knows less than UTF-8
            self.stream.write(shown.encode(self.stream.encoding, "replace").decode(self.stream.encoding))
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
def guarded_output() -> Iterator[None]:
    """Inside, nothing that is printed steers the terminal, by whatever library, or ends because nobody reads it."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Guarded(sys.stdout, bars=False), Guarded(sys.stderr, bars=True)
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        for handler in logger.handlers if isinstance(logger, logging.Logger) else ():
            if isinstance(handler, logging.StreamHandler) and handler.stream is before[1]:  # of a library loaded before
                handler.setStream(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
