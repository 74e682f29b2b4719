"""What a run leaves behind, so that any number in it can be traced to rows: names of files, writing and reading."""

import glob
import json
import os
import platform
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from heed.errors import UserError, written
from heed.files.lines import read_kept

RUN_FILE = "run.json"
STATE_FILE = "run_state.json"
CONFIG_FILE = "resolved_config.json"
SPLITS_FILE = "splits.json"
REJECTED_FILE = "rejected.jsonl"
METRICS_FILE = "metrics.jsonl"
FLIGHT_FILE = "flight.jsonl"
SAMPLES_FILE = "samples.jsonl"
LOSS_PLOT = "loss.png"
CONTRACT_FILE = "prompt_contract.json"
RESPONSES_FILE = "responses.json"
BASE_RESPONSES_FILE = "responses_base.json"
OWN_TEMPLATE_RESPONSES_FILE = "responses_base_own_template.json"
FIRST_BASE_RESPONSES_FILE = "responses_first_base.json"
CONTROLS_FILE = "responses_controls.json"
EVALUATION_FILE = "evaluation.json"
ITEMS_FILE = "items.jsonl"
STOPS_FILE = "stops.jsonl"
FORGETTING_FILE = "forgetting.jsonl"
ROWS_FILE = "rows.jsonl"
COMPARISON_FILE = "comparison.json"
JUDGE_FILE = "judge.jsonl"
JUDGE_SUMMARY_FILE = "judge_summary.json"
JUDGE_CACHE_FILE = "judge_cache.jsonl"
VOTES_FILE = "votes.jsonl"
ARENA_FILE = "arena.json"
REPORT_FILE = "report.html"
SUSPECTS_FILE = "suspects.jsonl"
MAP_PAGE = "map.html"
STUDY_FILE = "compared.json"
STUDY_PAGE = "compared.html"
ADAPTER_FILE = "adapter_config.json"  # peft's CONFIG_NAME; importing peft would take a second
MODEL_FILES = ("config.json", ADAPTER_FILE)
LEFT_FOR_GOOD = 3600.0  # seconds without a byte
PACKAGES = ("torch", "transformers", "datasets", "accelerate", "peft", "tokenizers", "numpy")


def is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER_FILE).is_file()


def has_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in MODEL_FILES)


def closed(folder: Path) -> Path | None:
    """What keeps a folder from being written into, or made: its nearest existing parent."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    return None if there.is_dir() and os.access(there, os.W_OK) else there


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output_dir: {folder} cannot be made ({error.strerror})") from error


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text file to write, which gets its name when it is whole; what had the name stays until then.

    Half a surrogate pair, which no UTF-8 file can contain, is written as the escape it was read from.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")  # no two writers share one
    try:
        file = part.open("w", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with written(path), file:
            yield file
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    remove_leftovers(path)


def remove_leftovers(path: Path) -> None:
    """What killed writers of this file left."""
    for part in path.parent.glob(f"{glob.escape(path.name)}.*-*.part"):
        with suppress(FileNotFoundError):  # another writer does the same
            if time.time() - part.stat().st_mtime > LEFT_FOR_GOOD:
                part.unlink()


def write_json(path: Path, value: Any) -> None:
    with whole_file(path) as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def read_json(path: Path) -> Any:
    """Raises UserError when the file is absent, cannot be read or is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except RecursionError:
        raise UserError(f"{path}: damaged (too many brackets within brackets)") from None
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error})") from error


def write_lines(path: Path, values: Iterable[Any]) -> None:
    with whole_file(path) as file:
        file.writelines(json.dumps(value, ensure_ascii=False, default=str) + "\n" for value in values)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Of a file that was written as a whole; none where there is no file. Raises UserError for any damaged line."""
    kept = read_kept(path, dict)
    for number, reason in (kept.damaged | kept.torn).items():
        raise UserError(f"{path}:{number}: damaged ({reason})")
    return kept.values


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}
