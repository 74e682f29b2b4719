"""Which weights these are: one hash that changes when a model is trained on, replaced or downloaded again."""

import _thread
import hashlib
import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock

from heed.errors import UserError
from heed.files import run_folder
from heed.files.hashes import file_sha256
from heed.models.gguf import folder_of
from heed.runs.finished import from_here

# What decides how a model answers. Not *.json: a run's folder also has what is said about the model.
DECIDES = (
    "*.safetensors",
    "config.json",
    run_folder.ADAPTER_FILE,
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
SHA256 = re.compile("[0-9a-f]{64}")
READING = Lock()


def model_sha256(model: str, revision: str | None = None) -> str:
    """A hash of a folder's weights, configuration and tokenizer; a model of the Hub is known by its commit.

    The base model of an adapter belongs to it.
    """
    digest = hashlib.sha256()
    folder, adapter = Path(folder_of(model)), None
    if folder.is_dir():
        for path in sorted({path for pattern in DECIDES for path in folder.glob(pattern)}):
            digest.update(f"{path.name} {sha256_of(path)}\n".encode())
        adapter = folder / run_folder.ADAPTER_FILE
    else:
        from transformers.utils.hub import cached_file, extract_commit_hash

        found, described = (
            cached_file(model, name, revision=revision, _raise_exceptions_for_missing_entries=False)
            for name in (run_folder.ADAPTER_FILE, "config.json")
        )
        digest.update(f"{model}@{extract_commit_hash(found or described, None) or revision}".encode())
        adapter = Path(found) if found else None
    if adapter is not None and adapter.is_file():
        base = run_folder.read_json(adapter)
        base_name = from_here(adapter.parent, base["base_model_name_or_path"])
        digest.update(model_sha256(base_name, base.get("revision")).encode())
    return digest.hexdigest()


def weights_sha256(model: str, revision: str | None = None) -> str:
    """A hash of the weights alone: what a training begins from, whatever is said around it. They must be here.

    In the Hub's cache a file is named by its hash already.
    """
    from transformers.utils.hub import cached_file

    folder = Path(folder_of(model))
    if not folder.is_dir():
        folder = Path(str(cached_file(model, "config.json", revision=revision))).parent
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        blob = path.resolve().name
        digest.update(f"{path.name} {blob if SHA256.fullmatch(blob) else sha256_of(path)}\n".encode())
    return digest.hexdigest()


def read_ahead(model: str) -> None:
    """Begin to hash a folder's weights beside what is done next; who asks for their hash waits for the rest of it."""

    def read() -> None:
        with suppress(UserError, OSError):  # who asks is told
            weights_sha256(model)

    if Path(model).is_dir():
        with suppress(RuntimeError):
            _thread.start_new_thread(read, ())


def sha256_of(path: Path) -> str:
    """Read once by a process, however often it is asked, unless it was written again."""
    stat = path.stat()
    with READING:
        return known_sha256(path.resolve(), stat.st_size, stat.st_mtime_ns)


@cache
def known_sha256(path: Path, size: int, written: int) -> str:
    return file_sha256(path)
