"""Where a run begins: at step 0, at a checkpoint, or nowhere because it is done."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heed.errors import UserError
from heed.files import run_folder
from heed.files.lock import LOCK_FILE
from heed.runs import checkpoints
from heed.runs.checkpoints import Checkpoint
from heed.runs.sameness import check_same
from heed.saying import Say


@dataclass(frozen=True, kw_only=True)
class Start:
    """`checkpoint` to continue from, None for step 0. `changed`: allowed keys that differ from the run so far."""

    done: bool = False
    checkpoint: Checkpoint | None = None
    changed: tuple[str, ...] = ()


def check_folder(folder: Path, *, resume: str, overwrite: bool) -> None:
    """Whether a run may use this folder; nothing is changed.

    `resume` is auto, never or a path. Raises UserError for a folder with something else in it, and for an earlier run
    that is neither to be continued nor to be deleted.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output_dir: {folder} is a file")
    if there := run_folder.closed(folder):
        raise UserError(f"output_dir: {folder} cannot be made, since nothing can be written into {there}")
    path = None if resume in ("auto", "never") else Path(resume)
    if path is not None and not path.is_dir():
        raise UserError(
            f"resume: {resume} is neither auto, never, a checkpoint folder (runs/NAME/checkpoint-N) nor a run"
        )
    within = path is not None and checkpoints.inside(path, folder)
    if within and overwrite:
        raise UserError(
            f"overwrite_output_dir: true would delete {resume}, which resume: would continue from; drop one of them"
        )
    if is_empty(folder):
        return
    if not (folder / run_folder.RUN_FILE).is_file():
        raise UserError(
            f"output_dir: {folder} is not empty and has no Heed run, so it will not be touched; choose another folder"
        )
    if not (overwrite or within or resume == "auto"):
        raise UserError(
            f"output_dir: {folder} contains an earlier run; choose another folder, set resume: auto to continue it, or "
            "set overwrite_output_dir: true to delete it"
        )


def is_empty(folder: Path) -> bool:
    return not folder.is_dir() or all(path.name == LOCK_FILE for path in folder.iterdir())


def find_start(
    folder: Path,
    fingerprint: Mapping[str, Any],
    *,
    resume: str,
    overwrite: bool,
    allowed: Sequence[str],
    world: int,
    say: Say,
) -> Start:
    """Make the folder ready, and say where to begin. Call it with the folder locked.

    Deletes an earlier run only when `overwrite` asks for it; checkpoints that cannot be used, or that come after the
    one to continue from, are renamed. Raises UserError for a run that differs from this one in keys not `allowed`.
    """
    check_folder(folder, resume=resume, overwrite=overwrite)
    if overwrite:
        clear(folder)
    if resume not in ("auto", "never"):
        return from_path(Path(resume), folder, fingerprint, allowed=allowed, world=world, say=say)
    if is_empty(folder):
        return Start()
    record = run_folder.read_json(folder / run_folder.RUN_FILE)
    place = str(folder)
    if "fingerprint" not in record:
        raise UserError(
            f"output_dir: {folder} contains a run of an earlier Heed, which cannot be continued; choose another "
            "folder, or set overwrite_output_dir: true to delete it"
        )
    changed = check_same(record["fingerprint"], fingerprint, allowed=allowed, place=place)
    if record["status"] == "done" and not changed:
        return Start(done=True)
    found = checkpoints.newest_whole(folder, say)
    if found is None:
        say("resume    there is no checkpoint to continue from: starting at step 0")
        return Start()
    return from_checkpoint(found, folder, fingerprint, allowed=allowed, world=world, say=say)


def from_path(
    path: Path, folder: Path, fingerprint: Mapping[str, Any], *, allowed: Sequence[str], world: int, say: Say
) -> Start:
    """As the user says: a checkpoint, or the newest whole one of a run folder."""
    if checkpoints.NAME.fullmatch(path.name) or (path / checkpoints.MANIFEST_FILE).exists():
        found: Checkpoint | None = checkpoints.verify(path)
    else:
        found = checkpoints.newest_whole(path, say, own=checkpoints.inside(path, folder))
    if found is None:
        raise UserError(f"resume: {path} contains no checkpoint to continue from")
    start = from_checkpoint(found, folder, fingerprint, allowed=allowed, world=world, say=say)
    if checkpoints.inside(found.path, folder):
        for later in checkpoints.checkpoints(folder):
            if checkpoints.step_of(later) > found.step:
                say(f"resume    {later.name} comes after it, renamed to {checkpoints.put_aside(later, 'later').name}")
    return start


def from_checkpoint(
    found: Checkpoint, folder: Path, fingerprint: Mapping[str, Any], *, allowed: Sequence[str], world: int, say: Say
) -> Start:
    checkpoints.refuse_pickles(found.path, own=checkpoints.inside(found.path, folder))
    if not found.facts["resumable"]:
        raise UserError(
            f"{found.path} has weights only (save_only_model: true), so a run cannot continue from it; choose "
            "another output_dir, or set overwrite_output_dir: true to start over"
        )
    changed = check_same(found.facts["fingerprint"], fingerprint, allowed=allowed, place=str(found.path))
    say(f"resume    from {found.path} (step {found.step}), whose files are as they were written")
    if changed:
        say(f"          changed since, as allowed: {', '.join(changed)}")
    if found.facts["processes"] != world:
        say(
            f"          {found.facts['processes']} processes wrote it, {world} continue: each step has the same "
            "rows, but sums are rounded differently, and dropout draws other numbers"
        )
    for name, version in run_folder.versions().items():
        if found.facts["versions"].get(name) != version:
            say(f"          {name} was {found.facts['versions'].get(name)} and is {version} now")
    return Start(checkpoint=found, changed=tuple(changed))


def clear(folder: Path) -> None:
    """Delete everything in the folder but its lock."""
    for path in folder.iterdir():
        if path.name == LOCK_FILE:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
