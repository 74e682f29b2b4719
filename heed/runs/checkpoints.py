"""Checkpoints that are whole or absent: staged, hashed, renamed; and read only when no byte has changed."""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heed.errors import UserError
from heed.files import run_folder
from heed.files.hashes import file_sha256, json_sha256, of_each, sync
from heed.saying import Say

MANIFEST_FILE = "MANIFEST.json"
STAGING = ".incomplete"  # in the run folder, for the checkpoint that is being written
NAME = re.compile(r"checkpoint-(\d+)")
# Weights that transformers or peft would unpickle where no safetensors file is beside them.
PICKLED_WEIGHTS = ("pytorch_model*.bin", "adapter_model.bin")
# What FSDP and DeepSpeed load with pickle's full power; a manifest tells damage from health, not friend from foe.
PICKLED_SHARDS = (".metadata", "*.distcp", "*_states.pt", "pytorch_model_fsdp*.bin", "optimizer.bin")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose files are all there and all as they were written."""

    path: Path
    facts: dict[str, Any]
    """The manifest without its files: step, processes, versions, fingerprint."""

    @property
    def step(self) -> int:
        return int(self.facts["step"])


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Size and SHA-256 of every file, on disk before the manifest is, and the manifest before this returns."""
    names = sorted(file_names(folder))

    def stored(name: str) -> str:
        sync(folder / name)
        return file_sha256(folder / name)

    hashes = of_each(names, stored)
    for inner in {(folder / name).parent for name in names} - {folder}:
        sync(inner)
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": digest} for name, digest in hashes.items()}
    manifest = json.loads(json.dumps({**facts, "files": files}, default=str))  # as it will be read
    run_folder.write_json(folder / MANIFEST_FILE, manifest | {"sha256": own_sha256(manifest)})
    sync(folder / MANIFEST_FILE)
    sync(folder)


def own_sha256(manifest: Mapping[str, Any]) -> str:
    """What a manifest says of itself: a bit lost in the fingerprint must not look like a run that was changed."""
    return json_sha256(manifest)


def publish(staged: Path, final: Path) -> None:
    """Give a whole checkpoint its name. One that has the name already was written at the same step by this run."""
    if final.exists():
        os.replace(final, staged.parent / f"old-{final.name}")
    os.replace(staged, final)
    sync(final.parent)


def verify(folder: Path) -> Checkpoint:
    """Raises UserError with what is wrong with a checkpoint: no manifest, a file missing, shortened or altered."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise UserError(f"{folder} has no {MANIFEST_FILE}, so nobody knows whether it is whole")
    manifest = run_folder.read_json(path)
    try:
        whole = manifest.pop("sha256") == own_sha256(manifest)
        files = {str(name): (int(each["bytes"]), str(each["sha256"])) for name, each in manifest.pop("files").items()}
        checkpoint = Checkpoint(path=folder, facts=manifest)
        int(manifest["step"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error!r})") from error
    if not whole:
        raise UserError(f"{path} was altered: its SHA-256 is not the one it was written with")
    for name, (size, _) in files.items():
        file = folder / name
        if not inside(file, folder):
            raise UserError(f"{path}: names {name!r}, which is not in the checkpoint")
        if not file.is_file():
            raise UserError(f"{file} is missing")
        if file.stat().st_size != size:
            raise UserError(f"{file} has {file.stat().st_size:,} bytes, and had {size:,} when it was written")
    found = of_each(files, lambda name: file_sha256(folder / name))
    for name, (_, digest) in files.items():
        if found[name] != digest:
            raise UserError(f"{folder / name} was altered: its SHA-256 is not the one it was written with")
    return checkpoint


def newest_whole(run: Path, say: Say, *, own: bool = True) -> Checkpoint | None:
    """The newest checkpoint of a run that verifies; newer ones that do not are put aside, and `say` reports why.

    In a run folder that is not this run's `own`, and so not locked by it, nothing is touched: it may be writing.
    """
    if own:
        shutil.rmtree(run / STAGING, ignore_errors=True)
    for path in reversed(checkpoints(run)):
        try:
            return verify(path)
        except UserError as error:
            now = f", now {put_aside(path, 'broken').name}" if own else ""
            say(f"resume    {path.name} is not usable{now}: {error}")
    return None


def checkpoints(run: Path) -> list[Path]:
    """All folders named like checkpoints, by step."""
    found = [path for path in run.iterdir() if path.is_dir() and NAME.fullmatch(path.name)] if run.is_dir() else []
    return sorted(found, key=step_of)


def step_of(path: Path) -> int:
    match = NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def put_aside(path: Path, why: str) -> Path:
    """Rename a checkpoint so that nobody resumes from it; nothing is deleted."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    aside = path.with_name(f"{why}-{path.name}-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{why}-{path.name}-{stamp}-{number}")
    path.rename(aside)
    return aside


def rotate(run: Path, *, keep: int | None, best: int | None) -> None:
    """Delete the oldest checkpoints until `keep` are left; never the newest one, nor that of step `best`.

    Called when the newest one has been written and verified, so there is always one to continue from.
    """
    found = checkpoints(run)
    if keep is None or keep <= 0 or not found:
        return
    for path in [path for path in found[:-1] if step_of(path) != best][: max(0, len(found) - keep)]:
        # Renamed first: what is half deleted must not look like a checkpoint.
        (run / STAGING).mkdir(exist_ok=True)
        shutil.rmtree(path.rename(run / STAGING / f"old-{path.name}"))


def refuse_pickles(checkpoint: Path, *, own: bool) -> None:
    """Raises UserError for a checkpoint that could run code when it is loaded.

    Optimizer, scheduler and random states are read as plain tensors (weights_only). Shards of FSDP and DeepSpeed are
    not, so they must be this run's `own`.
    """
    for pattern in PICKLED_WEIGHTS:
        for path in sorted(checkpoint.glob(pattern)):
            raise UserError(f"{path} is a pickle, which may run code; Heed loads weights from safetensors only")
    for pattern in () if own else PICKLED_SHARDS:
        for path in sorted(checkpoint.rglob(pattern)):
            raise UserError(
                f"{path} is loaded with pickle, which may run code; a sharded checkpoint is resumed only in the run "
                "folder that wrote it"
            )


def file_names(folder: Path) -> Iterator[str]:
    """Every file below a folder but its manifest, relative to it."""
    for path in folder.rglob("*"):
        if not path.is_dir() and path != folder / MANIFEST_FILE:
            yield path.relative_to(folder).as_posix()


def inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
