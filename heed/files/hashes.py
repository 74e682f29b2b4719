"""Files by their content, and content that is on the disk."""

import hashlib
import os
from pathlib import Path

from heed.errors import UserError


def file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def sync(path: Path) -> None:
    """Until this returns, what was written may only be in memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
