"""The process that empties an outbox: each push is one commit, tried again and again with growing pauses.

python -m heed.hub.push RUN
python -m heed.hub.push --check ME/MODEL
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils._http import default_client_factory  # no public name gives a client with their hooks

from heed.errors import UserError
from heed.files import hashes
from heed.files.lock import wait_for_lock
from heed.hub.outbox import FOLDER, SAID, Job, Target, claim, drop, read_job, waiting
from heed.hub.outgoing import WEIGHTS, leaving, redact, secrets_of, without_secrets

LOCK_FILE = ".lock"
TIMEOUT = 120.0  # seconds without a byte; the client's own is none
CHECK_TIMEOUT = 8.0
TRIES = 8
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
IN_VAIN = (400, 401, 403, 404, 413, 422)  # the same again would get the same answer


def main(arguments: Sequence[str]) -> int:
    """0 when nothing waits any more, 1 when something does."""
    if arguments[0] == "--check":
        set_timeout(CHECK_TIMEOUT)
        say(check(arguments[1]))
        return 0
    set_timeout(TIMEOUT)
    run = Path(arguments[0])
    with (run / FOLDER / LOCK_FILE).open("a+") as lock:
        wait_for_lock(lock.fileno())  # of a run that was killed there may be another one, still sending
        return int(not send_all(run))


def say(text: str) -> None:
    print(SAID + text, flush=True)


def set_timeout(seconds: float) -> None:
    def client() -> Any:
        made = default_client_factory()
        made.timeout = seconds
        return made

    set_client_factory(client)


def check(repo_id: str) -> str:
    """Whether a push could work, in a line; a warning where it could not."""
    if get_token() is None:
        return "WARNING: there is no token: `hf auth login`, or set HF_TOKEN"
    try:
        account = HfApi().whoami()
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            return "WARNING: the Hub refuses the token (expired or revoked): `hf auth login`, or set HF_TOKEN"
        return f"WARNING: the Hub answers {error.response.status_code}"
    except (HTTPError, OSError, OfflineModeIsEnabled) as error:
        return f"WARNING: the Hub cannot be reached ({one_line(error)})"
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        return "WARNING: the token may only read; pushing needs one that may write"
    return f"{repo_id}: logged in as {account['name']}, the Hub answers"


def send_all(run: Path) -> bool:
    """Send the newest job for each target until none is left; False when one could not be sent."""
    while True:
        newest: dict[Target, Path] = {}
        for path in waiting(run):
            job = read_job(path)
            if job.target in newest:
                drop(newest[job.target])
            newest[job.target] = path
        if not newest:
            return True
        for path in newest.values():
            claimed = claim(path)
            if claimed is not None and not send(read_job(claimed)):
                return False


def send(job: Job) -> bool:
    """Push a job, and delete it once it has arrived, or once it is clear that it must not leave."""
    place = f"{job.target.repo_id}" + ("" if job.target.revision == "main" else f" ({job.target.revision})")
    pauses = pauses_between_tries()
    for number in range(1, TRIES + 1):
        try:
            url, left = push(job)
        except UserError as error:
            shutil.rmtree(job.path)  # what it was made from is where it was
            say(f"WARNING: {job.what} is not sent: {error}")
            return True
        except (HfHubHTTPError, HTTPError, OSError, RuntimeError, ValueError) as error:
            status = status_of(error)
            reason = f"the Hub answers {status}" if status else one_line(error)
            garbage = isinstance(error, json.JSONDecodeError)
            if status in IN_VAIN or (isinstance(error, ValueError) and not garbage):
                say(f"WARNING: {job.what} cannot be pushed to {place}: {reason}{remedy(status)}")
                return False
            print(f"try {number} of {TRIES}: {job.what} to {place}: {reason}", flush=True)
            if number < TRIES:
                time.sleep(max(next(pauses), retry_after(error)))
        else:
            shutil.rmtree(job.path)
            tries = f" at try {number}" if number > 1 else ""
            say(f"{job.what} is at {url}{tries}")
            if left:
                say(f"WARNING: left out, since it contains what looks like a token: {', '.join(left)}")
            return True
    say(f"WARNING: {job.what} could not be pushed to {place} in {TRIES} tries: {reason}")
    return False


def push(job: Job) -> tuple[str, list[str]]:
    """One commit with what may leave. Returns its address, and which files were left out for a token in them.

    Raises UserError for files that were altered since the checkpoint was written, or that hold a token.
    """
    files, left = without_secrets(leaving(job.files), secrets_of())
    for path in files:
        if path.name in job.sha256 and hashes.file_sha256(path) != job.sha256[path.name]:
            raise UserError(f"{path.name} is not what was written into the checkpoint")
    api, target = HfApi(), job.target
    repo_id = api.create_repo(target.repo_id, private=target.private, exist_ok=True).repo_id
    if target.revision != "main":
        api.create_branch(repo_id, branch=target.revision, exist_ok=True)
    names = {path.name for path in files}
    stale = [
        name
        for name in api.list_repo_files(repo_id, revision=target.revision)
        if name not in names and any(fnmatch(name, pattern) for pattern in WEIGHTS)
    ]
    operations: list[Any] = [CommitOperationAdd(path.name, str(path)) for path in files]
    operations += [CommitOperationDelete(name) for name in stale]
    commit = api.create_commit(repo_id, operations, commit_message=job.what, revision=target.revision)
    return commit.commit_url, left


def pauses_between_tries() -> Iterator[float]:
    pause = FIRST_PAUSE
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE)


def status_of(error: BaseException | None) -> int | None:
    """The Hub's answer; the client wraps it for uploads."""
    while error is not None:
        if isinstance(error, HfHubHTTPError):
            return int(error.response.status_code)
        error = error.__cause__
    return None


def retry_after(error: BaseException) -> float:
    """What a Hub that is asked too often wants to be left alone for."""
    wanted = error.response.headers.get("Retry-After", "") if isinstance(error, HfHubHTTPError) else ""
    return min(float(wanted), LONGEST_PAUSE) if wanted.isdigit() else 0.0


def remedy(status: int | None) -> str:
    return {
        401: "; the token is missing, expired or revoked: `hf auth login`, or set HF_TOKEN",
        403: "; the token may not write there",
        404: "; there is no such repository, or the token may not see it",
    }.get(status or 0, "")


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return redact(f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__, secrets_of())


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main(sys.argv[1:]))
