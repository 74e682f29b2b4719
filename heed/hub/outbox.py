"""What waits to be pushed: a queue in the run folder, emptied by a separate process (`heed.hub.push`)."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from heed.errors import UserError
from heed.files.run_folder import read_json, write_json
from heed.hub.outgoing import leaving, refuse_incomplete
from heed.runs.checkpoints import MANIFEST_FILE
from heed.saying import Say

FOLDER = ".outbox"
LOG_FILE = "push.log"
JOB_FILE = "job.json"
FILES = "files"  # in the folder of a job
WAITING, SENDING = "waiting-", "sending-"
LINKED = (".safetensors",)  # never written to again, unlike a plot or a table, which a later evaluation rewrites
CHECK_SECONDS = 20.0
PAUSE = 0.05
SAID = "hub       "  # lines of the log that begin like this are for the user


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a push goes. `private` None: as the account has it for new repositories."""

    repo_id: str
    revision: str = "main"
    private: bool | None = None


def check_repo_id(repo_id: str, key: str) -> None:
    """Raises UserError for what cannot be a repository's name."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(
            f"{key}: {repo_id!r} is not what a repository on the Hub can be called, such as me/my-model: letters, "
            "digits, '-', '_' and '.', 96 at most"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Job:
    """Files to be pushed in one commit; `sha256` of those that are known."""

    path: Path
    target: Target
    what: str
    sha256: dict[str, str]

    @property
    def files(self) -> Path:
        return self.path / FILES


def queue(run: Path, folder: Path, target: Target, what: str, *, texts: Mapping[str, str]) -> None:
    """Put what may leave `folder` into the outbox of a run, with `texts` beside it; what waited for the same target and
    is older, goes.

    Weights are linked, not copied: the checkpoint may be deleted meanwhile. Raises UserError for a folder without whole
    weights, and OSError when there is no room.
    """
    files = leaving(folder)
    refuse_incomplete(files)
    outbox = run / FOLDER
    number = time.time_ns()
    staged = outbox / f"staged-{number}"
    (staged / FILES).mkdir(parents=True)
    try:
        for path in files:
            link_or_copy(path, staged / FILES / path.name)
        for name, text in texts.items():
            (staged / FILES / name).write_text(text, encoding="utf-8")
        hashes = {name: sha256 for name, sha256 in known_hashes(folder).items() if name not in texts}
        job = {"target": asdict(target), "what": what, "sha256": hashes}
        write_json(staged / JOB_FILE, job)
        os.replace(staged, outbox / f"{WAITING}{number}")
    except OSError:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    for job_path in waiting(run)[:-1]:
        if job_path.name.startswith(WAITING) and read_job(job_path).target == target:
            drop(job_path)


def link_or_copy(source: Path, copy: Path) -> None:
    if source.suffix in LINKED:
        try:
            os.link(source, copy)
            return
        except OSError:  # another file system, or one without links
            pass
    shutil.copyfile(source, copy)


def known_hashes(folder: Path) -> dict[str, str]:
    """By the manifest that a checkpoint was sealed with."""
    path = folder / MANIFEST_FILE
    files = read_json(path)["files"] if path.is_file() else {}
    return {name: each["sha256"] for name, each in files.items()}


def waiting(run: Path) -> list[Path]:
    """Jobs that have not been done, oldest first."""
    found = [*(run / FOLDER).glob(f"{WAITING}*"), *(run / FOLDER).glob(f"{SENDING}*")]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def read_job(path: Path) -> Job:
    value: dict[str, Any] = read_json(path / JOB_FILE)
    return Job(path=path, target=Target(**value["target"]), what=value["what"], sha256=value["sha256"])


def claim(path: Path) -> Path | None:
    """Mark a job as being sent, so that it stays where it is; None when it is gone already."""
    claimed = path.with_name(SENDING + path.name.rpartition("-")[2])
    try:
        os.replace(path, claimed)
    except FileNotFoundError:
        return None
    return claimed


def drop(path: Path) -> None:
    """Renamed first: half of a job must not look like one."""
    gone = path.with_name(f"gone-{path.name}")
    try:
        os.replace(path, gone)
    except FileNotFoundError:  # it is being sent
        return
    shutil.rmtree(gone, ignore_errors=True)


class Outbox:
    """The outbox of a run that is under way. Nothing in here raises, hangs or waits longer than it is told to."""

    def __init__(self, run: Path, target: Target, say: Say) -> None:
        self.run, self.target, self.say = run.resolve(), target, say
        self.folder = self.run / FOLDER
        self.log = self.folder / LOG_FILE
        self.read = self.log.stat().st_size if self.log.is_file() else 0
        self.process: subprocess.Popen[bytes] | None = None
        for half in [*self.folder.glob("staged-*"), *self.folder.glob("gone-*")]:  # of a run that was killed
            shutil.rmtree(half, ignore_errors=True)

    def check(self) -> None:
        """Say what is wrong with the Hub or the login, before the training begins; it begins anyway."""
        words = [*pushing("--check"), self.target.repo_id]
        try:
            done = subprocess.run(
                words,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=CHECK_SECONDS,
            )
            lines = [line for line in done.stdout.decode(errors="replace").splitlines() if line.startswith(SAID)]
        except subprocess.TimeoutExpired:
            lines = [f"{SAID}WARNING: the Hub has not answered for {CHECK_SECONDS:.0f} s"]
        for line in lines or [f"{SAID}WARNING: the Hub could not be asked"]:
            self.say(line)
        if any("WARNING" in line for line in lines or ["WARNING"]):
            self.say("          the run continues; what cannot be pushed stays in the run folder and is sent later")

    def add(self, folder: Path, what: str, *, texts: Mapping[str, str]) -> None:
        """Queue a folder and have it sent; a full disk only costs the push."""
        try:
            queue(self.run, folder, self.target, what, texts=texts)
        except (OSError, UserError) as error:
            self.say(f"{SAID}WARNING: {what} is not queued for the Hub: {error}")
        self.start()

    def start(self) -> None:
        """Have what waits sent, unless that is happening already."""
        if not waiting(self.run) or (self.process is not None and self.process.poll() is None):
            return
        try:
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    [*pushing(), str(self.run)],
                    env=environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # no signal that is meant for the training reaches it
                )
        except OSError as error:
            self.say(f"{SAID}WARNING: nothing can be sent now: {error}")

    def tell(self) -> None:
        """Pass on what the sending process has said since the last time."""
        try:
            with self.log.open("rb") as log:
                if log.seek(0, os.SEEK_END) < self.read:  # an earlier run in this folder was deleted
                    self.read = 0
                log.seek(self.read)
                news = log.read()
        except OSError:
            return
        whole = news[: news.rfind(b"\n") + 1]
        self.read += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            if line.startswith(SAID):
                self.say(line)

    def finish(self, seconds: float) -> bool:
        """Wait until all is sent, but no longer than `seconds`; then say how the rest can be sent. True: all is."""
        until = time.monotonic() + seconds
        self.start()
        try:
            while self.process is not None and time.monotonic() < until:
                time.sleep(PAUSE)
                self.tell()
                if self.process.poll() == 0 and waiting(self.run):  # it ended just before the last job came
                    self.start()
                elif self.process.poll() is not None:
                    break
        finally:
            if self.process is not None and self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self.tell()
        rest = waiting(self.run)
        if rest:
            self.say(f"{SAID}not on the Hub yet: {', '.join(read_job(path).what for path in rest)}. To send it:")
            self.say(f"          {command(self.run)}")
        return not rest


def command(run: Path) -> str:
    return f"python -m heed.hub {run}"


def pushing(*more: str) -> list[str]:
    return [sys.executable, "-m", "heed.hub.push", *more]


def environment() -> dict[str, str]:
    """Of the sending process: Heed is found wherever the training was started from.

    Xet is not used: it makes several commits of one push, and asks a server that no time limit of ours reaches.
    """
    root = str(Path(__file__).parent.parent.parent)
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {"HF_HUB_DISABLE_XET": "1"} | os.environ | {"PYTHONPATH": path, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
