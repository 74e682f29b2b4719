"""What a scan found, kept beside the ids under a hash of everything it depends on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from heed.audit.scan import Scan
from heed.data.sources import Source, file_hashes
from heed.errors import UserError
from heed.files import run_folder
from heed.files.hashes import json_sha256
from heed.prompts.hashes import prompt_hash
from heed.prompts.template import Prompt
from heed.tokens.encoding import Policy

VERSION = 5  # of what a scan computes; one of another version is not taken from the cache


def scan_key(
    files: Mapping[str, str], reading: Mapping[str, Any], prompt: Prompt, policy: Policy, against: Sequence[str]
) -> str:
    """SHA-256 over data bytes, how they are read and split, template, tokenizer, policy and evaluation files."""
    evaluations = {name: file_hashes(Source(data=name)) for name in against}
    parts = [VERSION, dict(files), dict(reading), prompt_hash(prompt), asdict(policy), evaluations]
    return json_sha256(parts)


def check_cache() -> None:
    """Raises UserError when nothing can be kept where the datasets library keeps what it has made of rows."""
    folder = Path(datasets.config.HF_DATASETS_CACHE)
    if there := run_folder.closed(folder):
        raise UserError(
            f"the cache {folder} cannot be used, since nothing can be written into {there}; name a folder that can be "
            "written into with the environment variable HF_DATASETS_CACHE (or HF_HOME, for models too)"
        )


def cache_file(key: str) -> Path:
    return Path(datasets.config.HF_DATASETS_CACHE) / "heed" / f"scan-{key}.npz"


def cached_scan(key: str) -> Scan | None:
    """The scan of that key, if there is one; a damaged file counts as none."""
    path = cache_file(key)
    try:
        with np.load(path, allow_pickle=False) as stored:
            facts = json.loads(str(stored["facts"]))
            return Scan(rows=stored["rows"], from_cache=True, **facts)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def store_scan(key: str, scanned: Scan) -> None:
    """Write a file that is either whole or absent."""
    path = cache_file(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {name: value for name, value in vars(scanned).items() if name not in ("rows", "from_cache")}
    with run_folder.whole_file(path) as file:
        np.savez(file.buffer, rows=scanned.rows, facts=np.array(json.dumps(facts)))
