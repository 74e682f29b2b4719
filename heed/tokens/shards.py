"""Encoded examples on disk: Arrow files, each whole or absent."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow
from datasets import Dataset
from datasets.arrow_writer import ArrowWriter

from heed.errors import written
from heed.files.hashes import file_sha256, sync
from heed.tokens.examples import FEATURES

SHARD = 500_000  # examples in a file


class Shards:
    """Writes the training examples of a set that is being prepared."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, tuple[int, str]] = {}
        """Size and SHA-256 of each file."""
        self.writer: ArrowWriter | None = None
        self.rows = 0

    def write(self, table: pyarrow.Table) -> None:
        if self.writer is None:
            self.path = self.folder / f"train-{len(self.names):05}.arrow"
            self.writer = ArrowWriter(path=str(self.path), features=FEATURES)
        self.writer.write_table(table)
        self.rows += table.num_rows
        if self.rows >= SHARD:
            self.close()

    def close(self) -> None:
        if self.writer is None:
            return
        self.writer.finalize()
        sync(self.path)
        self.names[self.path.name] = (self.path.stat().st_size, file_sha256(self.path))
        self.writer, self.rows = None, 0


@contextmanager
def whole_file(path: Path) -> Iterator[ArrowWriter]:
    """A writer of one file that appears only when it is whole; an error leaves nothing behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with written(path):
            writer = ArrowWriter(path=str(part), features=FEATURES)
            yield writer
            writer.finalize()
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_whole(path: Path) -> Dataset | None:
    """What `whole_file` wrote, mapped into memory; a damaged file counts as none."""
    try:
        return Dataset.from_file(str(path))
    except (OSError, pyarrow.ArrowInvalid):
        return None
