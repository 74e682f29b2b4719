"""What a run leaves behind, so that any number in it can be traced to rows: names of files, writing and reading."""

import json
import os
import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from heed.errors import UserError

RUN_FILE = "run.json"
STATE_FILE = "run_state.json"
CONFIG_FILE = "resolved_config.json"
SPLITS_FILE = "splits.json"
REJECTED_FILE = "rejected.jsonl"
METRICS_FILE = "metrics.jsonl"
FLIGHT_FILE = "flight.jsonl"
SAMPLES_FILE = "samples.jsonl"
LOSS_PLOT = "loss.png"
RESPONSES_FILE = "responses.json"
COMPARISON_FILE = "comparison.json"
BASE_RESPONSES_FILE = "responses_base.json"
PACKAGES = ("torch", "transformers", "datasets", "accelerate", "peft", "tokenizers", "numpy")


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output_dir: {folder} cannot be made ({error.strerror})") from error


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text file to write, which gets its name when it is whole; what had the name stays until then.

    Half a surrogate pair, which no UTF-8 file can hold, is written as the escape it was read from.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8", errors="backslashreplace") as file:
            yield file
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    with whole_file(path) as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def writable(text: str) -> str:
    """Half a surrogate pair, which a server's JSON can hold and UTF-8 cannot, becomes a question mark."""
    return text.encode(errors="replace").decode()


def read_json(path: Path) -> Any:
    """Raises UserError when the file is absent or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: damaged ({error})") from error


def append_line(path: Path, value: Any) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


def write_lines(path: Path, values: Iterable[Any]) -> None:
    with whole_file(path) as file:
        file.writelines(json.dumps(value, ensure_ascii=False, default=str) + "\n" for value in values)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Raises UserError for a line that is not JSON, such as one that was being written when the power went."""
    values = []
    # Not splitlines: a text may hold U+2028 or U+0085, which end a line there and not in JSON.
    for number, line in enumerate(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"), start=1):
        try:
            values += [json.loads(line)] if line else []
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{number}: damaged ({error})") from error
    return values


def rewind_lines(path: Path, step: int) -> None:
    """Take away what an interrupted run wrote after the step that it is resumed from, and a line torn by its end."""
    if not path.is_file():
        return
    *lines, torn = path.read_bytes().split(b"\n")  # nothing follows the last newline of a file that is whole
    kept = [line + b"\n" for line in lines if json.loads(line)["step"] <= step]
    if torn or len(kept) < len(lines):
        part = path.with_name(path.name + ".part")
        part.write_bytes(b"".join(kept))
        os.replace(part, path)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}
