import _thread
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from heed.errors import UserError
from heed.files.hashes import file_sha256, of_each


def refused(*arguments: object) -> None:
    raise RuntimeError("can't start new thread")


def dead_at_birth(*arguments: object) -> None:
    """A thread that finds no memory for its first call."""


@pytest.mark.parametrize("start", [_thread.start_new_thread, refused, dead_at_birth])
def test_files_are_hashed_with_as_many_threads_as_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[..., object]
) -> None:
    names = [f"{number}.bin" for number in range(40)]
    for name in names:
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(_thread, "start_new_thread", start)
    hashes = of_each(names, lambda name: file_sha256(tmp_path / name))
    assert hashes == {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    with pytest.raises(UserError, match=r"gone\.bin: cannot be read"):
        of_each([*names, "gone.bin"], lambda name: file_sha256(tmp_path / name))
