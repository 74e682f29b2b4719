"""Which weights a number belongs to: one hash that changes when a model is trained on, replaced or re-downloaded."""

import hashlib
from pathlib import Path

from heed.files import run_folder
from heed.files.hashes import file_sha256

DESCRIBES = ("config.json", "adapter_config.json", "tokenizer.json")


def model_sha256(model: str, revision: str | None) -> str:
    """A hash of a folder's weights and configuration, with the base model where the folder holds an adapter.

    A Hub id stands for the commit it resolves to.
    """
    folder = Path(model)
    digest = hashlib.sha256()
    if not folder.is_dir():
        digest.update(f"{model}@{hub_commit(model, revision)}".encode())
        return digest.hexdigest()
    for path in sorted((*folder.glob("*.safetensors"), *(folder / name for name in DESCRIBES))):
        if path.is_file():
            digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        base = run_folder.read_json(adapter)
        digest.update(model_sha256(base["base_model_name_or_path"], base.get("revision")).encode())
    return digest.hexdigest()


def hub_commit(model: str, revision: str | None) -> str:
    from transformers import AutoConfig

    return str(AutoConfig.from_pretrained(model, revision=revision)._commit_hash)
