"""What may leave this machine: files on a list that are files of the folder itself, with no token in them."""

import os
import re
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from heed.errors import UserError
from heed.files import run_folder

WEIGHTS = (
    "model.safetensors",
    "model-?????-of-?????.safetensors",
    "model.safetensors.index.json",
    "adapter_model.safetensors",
    run_folder.ADAPTER_FILE,
)
"""Of these a repository has only what the newest push has: an old shard beside them would make another model."""
NEEDED = (
    *WEIGHTS,
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    run_folder.CONTRACT_FILE,
)
BESIDE = (
    "README.md",
    run_folder.LOSS_PLOT,
    run_folder.METRICS_FILE,
    run_folder.ROWS_FILE,
    run_folder.COMPARISON_FILE,
)
ALLOWED = NEEDED + BESIDE
LONGEST_HEADER = 100_000_000  # bytes; safetensors itself takes no longer ones
REMOVED = "[removed: it looks like a token]"
TOKENS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"hf_[A-Za-z0-9]{30,}"
    r"|api_org_[A-Za-z0-9]{30,}"
    r"|sk-(?:[a-z]+-)*[A-Za-z0-9_]{32,}"
    r"|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,}"
    r"|AKIA[A-Z0-9]{16}"
    r"|xox[abprs]-[A-Za-z0-9-]{20,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r")"
)
IN_ADDRESS = re.compile(r"(?<=://)[^/\s:@\"'`]+:[^/\s:@\"'`]+(?=@)")
SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY", re.IGNORECASE)
SHORTEST_SECRET = 12  # characters; a variable such as TOKENIZERS_PARALLELISM=true is not one


def leaving(folder: Path) -> list[Path]:
    """The files of a folder that may leave it, by name.

    A link is none of them, wherever it leads; nor is anything in a folder inside.
    """
    return [
        path
        for path in sorted(folder.iterdir())
        if any(fnmatch(path.name, pattern) for pattern in ALLOWED) and path.is_file() and not path.is_symlink()
    ]


def refuse_incomplete(files: Iterable[Path]) -> None:
    """Raises UserError where weights are missing, as in sharded checkpoints: nobody could load what is on the Hub."""
    paths = {path.name: path for path in files}
    index = paths.get("model.safetensors.index.json")
    needed = set(run_folder.read_json(index)["weight_map"].values()) if index is not None else set()
    missing = sorted(needed - paths.keys())
    if missing or not any(name.endswith(".safetensors") for name in paths):
        what = f"{missing[0]} is missing" if missing else "it has no weights as safetensors (but perhaps shards)"
        raise UserError(f"{what}; only a whole model is pushed")


def without_secrets(files: Iterable[Path], secrets: Iterable[str]) -> tuple[list[Path], list[str]]:
    """The files in which nothing looks like a token, and the names of those left out because something does.

    Raises UserError where a model cannot do without one that must stay.
    """
    kept, left = [], []
    for path in files:
        if has_secret(scanned_text(path), secrets):
            if any(fnmatch(path.name, pattern) for pattern in NEEDED):
                raise UserError(
                    f"{path.name} contains what looks like a token, and the model cannot do without this file; nothing "
                    "is sent. Take the token out of it (and renew it)"
                )
            left.append(path.name)
        else:
            kept.append(path)
    return kept, left


def scanned_text(path: Path) -> str:
    """What could contain a token: all of a text, and the header of weights."""
    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            return file.read(min(size, LONGEST_HEADER)).decode("latin-1")
    return path.read_bytes().decode("utf-8", errors="replace")


def has_secret(text: str, secrets: Iterable[str]) -> bool:
    return bool(TOKENS.search(text) or IN_ADDRESS.search(text)) or any(secret in text for secret in secrets)


def redact(text: str, secrets: Iterable[str]) -> str:
    """The text with a remark in place of each token."""
    for secret in secrets:
        text = text.replace(secret, REMOVED)
    return IN_ADDRESS.sub(REMOVED, TOKENS.sub(REMOVED, text))


def secrets_of() -> list[str]:
    """The values that this process was given as secrets, the stored login's token among them; the longest first."""
    from huggingface_hub import get_token

    found = {value for name, value in os.environ.items() if SECRET_NAME.search(name)} | {get_token() or ""}
    return sorted((value for value in found if len(value) >= SHORTEST_SECRET), key=len, reverse=True)
