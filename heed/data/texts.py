"""The text of a file, decompressed, decoded and bounded: line by line, or value by value where it is JSON."""

import codecs
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from heed.errors import UserError

MB = 1_000_000
LONGEST = 32 * MB  # of a row: a packed file of a few kB may claim to contain more
TOO_LONG = f"longer than {LONGEST // MB} MB, which no row is"
DEEPEST = 100
TOO_DEEP = "not JSON: too many brackets within brackets"
BLOCK = 1 << 20
POINTER = b"version https://git-lfs."  # what Git leaves where a large file was not fetched
GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
UTF_16, UTF_8 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), codecs.BOM_UTF8
DAMAGED = (EOFError, OSError, zlib.error)  # what reading a compressed file raises


def open_bytes(path: Path, name: str) -> BinaryIO:
    """A file's bytes, decompressed. The first bytes decide, not the name, so a wrong ending does no harm."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror})") from error
    magic = file.read(len(POINTER))
    file.seek(0)
    if magic == POINTER:
        raise UserError(f"{name}: Git LFS has left a pointer here instead of the file; fetch it with `git lfs pull`")
    if magic[:2] == GZIP_MAGIC:
        return cast(BinaryIO, gzip.open(file))
    if magic[:4] == ZSTD_MAGIC:
        import pyarrow

        return cast(BinaryIO, pyarrow.input_stream(file, compression="zstd"))
    return file


@contextmanager
def open_text(path: Path, name: str) -> Iterator[io.BufferedReader]:
    """The bytes of a text after its byte order mark.

    Raises UserError, also from within the block, for a file that is damaged or not UTF-8.
    """
    try:
        with io.BufferedReader(cast(Any, open_bytes(path, name)), BLOCK) as stream:
            beginning = stream.peek(len(UTF_8))
            if beginning.startswith(UTF_16):
                raise UserError(f"{name}: the file is UTF-16; save it as UTF-8")
            if beginning.startswith(UTF_8):
                stream.read(len(UTF_8))
            yield stream
    except DAMAGED as error:
        raise UserError(f"{name}: the compressed file is damaged or cut off ({error})") from error


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a text file; `text` is None if the bytes are not UTF-8, and `problem` says so."""

    number: int
    text: str | None
    problem: str | None = None


def read_lines(path: Path, name: str) -> Iterator[Line]:
    """Decode a text file line by line, so that a wrong byte is named with its line.

    Lines end at newlines only: other separators that Unicode knows (U+2028) are part of the text.
    """
    with open_text(path, name) as stream:
        for number in count(1):
            data = stream.readline(LONGEST + 1)
            if not data:
                return
            if len(data) > LONGEST:
                raise UserError(f"{name}:{number}: {TOO_LONG}")
            try:
                yield Line(number=number, text=data.decode())
            except UnicodeDecodeError as error:
                yield Line(number=number, text=None, problem=not_utf8(error, f" at column {error.start + 1}"))


def not_utf8(error: UnicodeDecodeError, where: str = "") -> str:
    return f"not UTF-8 (byte {error.object[error.start]:#04x}{where}); save the file as UTF-8"


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For json: a key given twice is an error, because one of the two values would vanish."""
    row: dict[str, Any] = {}
    for key, value in pairs:
        if key in row:
            raise ValueError(f"key {key!r} is given twice")
        row[key] = value
    return row


def refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


DECODER = json.JSONDecoder(object_pairs_hook=unique_keys, parse_constant=refuse_constant)
SPACE = re.compile(r"[ \t\r\n]*")
NEAR_THE_END = 16  # characters: `-Infinity` or an escape that has been cut is named where it begins


class JsonText:
    """A window on JSON of any size: it reads on at its end and forgets its start."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self.blocks = decoded(path, name)
        self.text, self.at = "", 0
        self.line, self.line_start = 1, 0
        """The number of the line at `at`, and where in `text` it begins or would begin."""

    def next_sign(self) -> str:
        """The next character that is not a space; empty at the end of the file."""
        while True:
            space = SPACE.match(self.text, self.at)
            assert space is not None
            self.move(space.end())
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.read_on():
                return ""

    def value(self) -> tuple[Any, str | None]:
        """The value here, and what is wrong with it that does not keep the next one from being read.

        Raises UserError where no value can be read.
        """
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                complaint = self.error(error.msg, error.pos)
                cut_off = error.pos >= len(self.text) - NEAR_THE_END or error.msg.startswith("Unterminated")
                if not cut_off or not self.read_on():
                    raise complaint from error
            except RecursionError:
                raise UserError(f"{self.name}:{self.line}: {TOO_DEEP}") from None
            except ValueError as error:
                raise UserError(f"{self.name}:{self.line}: not JSON: {error}") from error
            else:
                if end < len(self.text) or not self.read_on():  # a number that ends with the window may be cut off
                    break
        problem = depth_problem(value, self.text, self.at, end)
        self.move(end)
        return value, problem

    def move(self, position: int) -> None:
        newlines = self.text.count("\n", self.at, position)
        if newlines:
            self.line += newlines
            self.line_start = self.text.rfind("\n", self.at, position) + 1
        self.at = position

    def read_on(self) -> bool:
        """Forget what was read, and make the rest at least twice as long; False at the end of the file.

        Raises UserError for a value that has no end.
        """
        rest = self.text[self.at :]
        if len(rest) > LONGEST:
            raise UserError(f"{self.name}:{self.line}: {TOO_LONG} (is a quotation mark missing?)")
        pieces, wanted = [rest], min(max(1, len(rest)), LONGEST + 1 - len(rest))
        while wanted > 0 and (block := next(self.blocks, None)) is not None:
            pieces.append(block)
            wanted -= len(block)
        if len(pieces) > 1:
            self.line_start -= self.at
            self.text, self.at = "".join(pieces), 0
        return len(pieces) > 1

    def error(self, message: str, position: int) -> UserError:
        line = self.line + self.text.count("\n", self.at, position)
        newline = self.text.rfind("\n", self.at, position)
        column = position - (newline if newline >= 0 else self.line_start - 1)
        return UserError(f"{self.name}:{line}: not JSON: {message} (column {column})")


def decoded(path: Path, name: str) -> Iterator[str]:
    """The text of a file, a megabyte at a time."""
    decoder, line = codecs.getincrementaldecoder("utf-8")(), 1
    with open_text(path, name) as stream:
        while block := stream.read(BLOCK):
            try:
                yield (text := decoder.decode(block))
            except UnicodeDecodeError as error:
                line += error.object.count(b"\n", 0, error.start)
                raise UserError(f"{name}:{line}: {not_utf8(error)}") from error
            line += text.count("\n")
        if decoder.getstate()[0]:
            raise UserError(f"{name}:{line}: the file ends in the middle of a character")


def depth_problem(value: Any, text: str, start: int = 0, end: int | None = None) -> str | None:
    """Says if a value has more brackets within brackets than any row has, which other code would trip over.

    `text` between `start` and `end` is what it was read from.
    """
    if text.count("[", start, end) + text.count("{", start, end) <= DEEPEST:
        return None
    left = [(value, 1)]
    while left:
        each, depth = left.pop()
        if depth > DEEPEST:
            return TOO_DEEP
        if isinstance(each, dict | list):
            left += ((inner, depth + 1) for inner in (each.values() if isinstance(each, dict) else each))
    return None
