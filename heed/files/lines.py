"""Lines of JSON that are kept as they come: whatever ends the process, the lines before that stay readable.

A killed process leaves a torn last line, a machine that lost power may leave lines of NUL bytes: damaged lines at the
end are cut off. A damaged line that whole ones follow is named by file and line, and who reads the file decides
whether it can do without.
"""

import errno
import json
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from itertools import takewhile
from pathlib import Path
from typing import Any, Generic, TypeVar

from heed.errors import UserError, written
from heed.saying import Say

Value = TypeVar("Value")
ValueOf = Callable[[dict[str, Any]], Value]
"""What a line's object means; the line is damaged too when this fails."""


@dataclass(frozen=True, kw_only=True)
class Line(Generic[Value]):
    number: int
    end: int
    """Bytes from the beginning of the file to the end of this line."""
    value: Value


@dataclass(frozen=True, kw_only=True)
class Kept(Generic[Value]):
    """What a file has. Damaged lines are numbers with what is wrong; `torn` are those that no whole line follows."""

    path: Path
    lines: list[Line[Value]]
    damaged: dict[int, str]
    torn: dict[int, str]

    @property
    def values(self) -> list[Value]:
        return [line.value for line in self.lines]

    @property
    def damage(self) -> str | None:
        """One sentence on all damaged lines."""
        return said_of(self.path, self.damaged | self.torn)


def said_of(path: Path, damaged: dict[int, str]) -> str | None:
    first = next(iter(damaged.values()), "")
    return f"{path}:{', '.join(map(str, damaged))}: damaged and left out ({first})" if damaged else None


def read_kept(path: Path, value_of: ValueOf[Value]) -> Kept[Value]:
    return scan(path, path.read_bytes() if path.is_file() else b"", value_of)


def scan(path: Path, data: bytes, value_of: ValueOf[Value], *, after: int = 0) -> Kept[Value]:
    """`data` is what the file contains after so many lines."""
    lines: list[Line[Value]] = []
    damaged: dict[int, str] = {}
    torn: dict[int, str] = {}
    end = 0
    # Not splitlines: a text may contain U+2028 or U+0085, which end a line there and not in JSON.
    for number, line in enumerate(data.split(b"\n"), after + 1):
        end = min(end + len(line) + 1, len(data))  # the last line may lack its newline
        if not line.strip():
            continue
        try:
            lines.append(Line(number=number, end=end, value=value_of(parse(line))))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            torn[number] = f"no {error}" if isinstance(error, KeyError) else str(error)
        else:
            damaged, torn = damaged | torn, {}
    return Kept(path=path, lines=lines, damaged=damaged, torn=torn)


def parse(line: bytes) -> dict[str, Any]:
    """Raises ValueError for what is not a JSON object in UTF-8."""
    if not line.strip(b"\0"):
        raise ValueError("NUL bytes")
    try:
        value = json.loads(line.decode())  # of bytes json would guess the encoding
    except RecursionError:
        raise ValueError("too many brackets within brackets") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def whole(kept: Kept[Value]) -> list[Value]:
    """The values of a file that may lack only lines at its end. Raises UserError for one in the middle."""
    for number, reason in kept.damaged.items():
        raise UserError(f"{kept.path}:{number}: damaged ({reason}); correct this line or remove it")
    return kept.values


def kept_values(path: Path) -> list[dict[str, Any]]:
    """The objects of such a file; none where there is no file."""
    return whole(read_kept(path, dict))


def append_line(path: Path, value: Any) -> None:
    with path.open("ab", buffering=0) as file:
        write_line(file, path, value)


def write_line(file: FileIO, path: Path, value: Any) -> None:
    """One write, so that a killed process, or a full disk, leaves the whole line or none.

    `file` is `path`, opened for appending without a buffer. Raises OSError when there is no space for the line.
    """
    line = line_of(value)
    with written(path):
        if (size := file.write(line)) != len(line):
            file.truncate(file.tell() - size)
            raise OSError(errno.ENOSPC, None)


def line_of(value: Any) -> bytes:
    """Half a surrogate pair, which no UTF-8 file can contain, is written as the escape it was read from."""
    return (json.dumps(value, ensure_ascii=False, default=str) + "\n").encode(errors="backslashreplace")


def keep_only(path: Path, lines: list[Line[Any]]) -> None:
    """Leave only these, the first lines of the file, so that the next one begins on a new line."""
    if path.is_file():
        with path.open("r+b") as file:
            file.truncate(lines[-1].end if lines else 0)
            if lines and not path.read_bytes().endswith(b"\n"):
                file.seek(0, 2)
                file.write(b"\n")


def rewind_lines(path: Path, step: int, say: Say) -> None:
    """Take away what an interrupted run wrote after the step that it is resumed from, and damaged lines at the end.

    Raises UserError for a damaged line before that.
    """
    kept = read_kept(path, step_of)
    lines = list(takewhile(lambda line: line.value <= step, kept.lines))
    last = lines[-1].number if lines else 0
    whole(Kept(path=path, lines=lines, damaged={n: why for n, why in kept.damaged.items() if n < last}, torn={}))
    keep_only(path, lines)
    if damage := said_of(path, {n: why for n, why in (kept.damaged | kept.torn).items() if n > last}):
        say(damage)


def step_of(value: dict[str, Any]) -> int:
    step = value["step"]
    if not isinstance(step, int):
        raise ValueError(f"step: {step!r} is not a number of steps")
    return step
