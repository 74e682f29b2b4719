"""The scripts that train nothing, killed and starved of room: files are old or new, and the same command ends."""

import hashlib
import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from threading import Timer
from typing import Any

import datasets

from faults.elsewhere import Harness, Scripts
from faults.harness import script, wait
from faults.injection import die_at_change
from faults.lab import Lab, Row, of
from heed.files.lines import read_kept
from world.arena_server import Voter, served
from world.small_world import gpt2, save_model
from world.stub_judge import serve as serve_judge

POINTS = 10
KEPT_AS_THEY_COME = ("responses.partial.jsonl", "responses_base.partial.jsonl", "judge_cache.jsonl")
"""Whose last line may be torn."""
WRITTEN_IN_STAGES = ("rows.jsonl", "stops.jsonl", "forgetting.jsonl", "evaluation.json")
"""A system after the other, or before the judge, or the scores, and after them."""
TIMES = {
    "seconds",
    "time",
    "written",
    "responses_sha256",
    "controls_sha256",
    "cached",
    "requests",
    "prompt_tokens",
    "completion_tokens",
}
RUN = re.compile(r"/\S+/run\d+(/work)?")
IS_THERE = re.compile("(is there|exists) already")


def left(folder: Path) -> dict[str, Any]:
    """What the files below a folder say, times and caches aside. Raises for half a file."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if ".part" in name or name.startswith("cache") or path.name.startswith("."):
            continue
        if path.suffix == ".json":
            found[name] = without_times(json.loads(told(path)))
        elif path.suffix == ".jsonl":
            lines = told(path).split("\n")
            if lines.pop() and path.name not in KEPT_AS_THEY_COME:
                raise ValueError(f"{path}: the last line is torn")
            found[name] = sorted((without_times(json.loads(line)) for line in lines), key=str)
        elif path.suffix == ".html":
            assert path.read_text().rstrip().endswith("</html>")
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def told(path: Path) -> str:
    """A file's text, in which all folders of a lab are one."""
    return RUN.sub("FOLDER", path.read_text())


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_times(each) for name, each in value.items() if name not in TIMES}
    return [without_times(each) for each in value] if isinstance(value, list) else value


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a script is told for a folder, `early` what it had been told before, and how it is named in the table."""

    what: str
    script: str
    arguments: Callable[[Path], list[str]]
    early: Callable[[Path], list[str]] | None = None


class Bench:
    """One script at work in folders that begin alike."""

    def __init__(self, lab: Lab, work: Work) -> None:
        self.lab, self.work = lab, work
        self.log, self.counted = lab.folder / "scripts.log", lab.folder / "counted"
        self.before, self.whole = lab.new(), lab.new()
        self.before.mkdir()
        if work.early is not None:
            assert self.run(self.before, work.early) == 0, self.said()
        shutil.copytree(self.before, self.whole)
        began = time.monotonic()
        assert self.run(self.whole) == 0, self.said()
        self.seconds = time.monotonic() - began
        self.changes = int(self.counted.read_text())
        self.old, self.new = left(self.before), left(self.whole)
        assert self.new != self.old

    def said(self) -> str:
        return self.log.read_text()[-2000:]

    def start(self, folder: Path, told: Callable[[Path], list[str]] | None = None, *, kill_at: int = 0) -> Any:
        self.log.write_text("")
        arguments = (told or self.work.arguments)(folder)
        prepare = partial(prepared, folder, kill_at, self.counted)
        return self.lab.forks.start(script, self.work.script, arguments, {}, self.log, prepare)

    def run(self, folder: Path, told: Callable[[Path], list[str]] | None = None, *, kill_at: int = 0) -> int | None:
        return wait([self.start(folder, told, kill_at=kill_at)])[0]

    def copy(self, folder: Path) -> Path:
        shutil.copytree(self.before, folder, dirs_exist_ok=True)
        return folder

    def old_or_new(self, folder: Path) -> bool:
        found = left(folder)
        return all(
            Path(name).name in KEPT_AS_THEY_COME + WRITTEN_IN_STAGES
            or value in (self.old.get(name), self.new.get(name))
            for name, value in found.items()
        )

    def ends(self, folder: Path) -> bool:
        """Whether the same command ends with the files of a run that nobody broke."""
        code = self.run(folder)
        return (code == 0 or (code == 2 and IS_THERE.search(self.said()) is not None)) and left(folder) == self.new

    def killed_at_changes(self, points: int) -> list[bool]:
        found = []
        for number in range(points):
            folder = self.copy(self.lab.new())
            kill_at = 1 + number * (self.changes - 1) // max(1, points - 1)
            assert self.run(folder, kill_at=kill_at) == -signal.SIGKILL, self.said()
            found.append(self.old_or_new(folder) and self.ends(folder))
            shutil.rmtree(folder)
        return found

    def killed_at_random(self, points: int) -> list[bool]:
        found: list[bool] = []
        while len(found) < points:
            folder = self.copy(self.lab.new())
            process = self.start(folder)
            process.join(self.lab.random.uniform(0.0, self.seconds))
            process.kill()
            if wait([process]) == [-signal.SIGKILL]:
                found.append(self.old_or_new(folder) and self.ends(folder))
            shutil.rmtree(folder)
        return found

    def short_of_room(self, points: int) -> list[bool]:
        """On a disk with less room than the work takes; the same command once there is enough."""
        found: list[bool] = []
        size = sum(path.stat().st_size for path in self.whole.rglob("*") if path.is_file())
        while len(found) < points:
            with full_disk(self.lab.new()) as disk:
                folder, filler = self.copy(disk / "work"), disk / "filler"
                free = shutil.disk_usage(disk).free - int(self.lab.random.uniform(0, size))
                filler.write_bytes(bytes(max(0, free)))
                code, said = self.run(folder), self.said()
                if code == 0:
                    continue
                good = code == 2 and f"no space is left for {folder}" in said and self.old_or_new(folder)
                filler.unlink()
                found.append(good and self.ends(folder))
                if not found[-1]:
                    print(f"  {self.work.what}: {code} {said}", flush=True)
        return found


def prepared(folder: Path, kill_at: int, counted: Path) -> None:
    """The cache lies in the folder, so that it is killed and starved like the rest."""
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    die_at_change(folder, kill_at, counted)


@contextmanager
def full_disk(place: Path, *, size: str = "64m") -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def may_mount(lab: Lab) -> bool:
    try:
        with full_disk(lab.new()):
            return True
    except subprocess.CalledProcessError:
        return False


def answering(lab: Lab, judge: str) -> Work:
    tuned, rows = save_model(lab.folder / "tuned", gpt2(n_layer=1)), lab.folder / "few.json"
    few = [{"instruction": f"Say {each}.", "input": "", "output": f"{each}!"} for each in "abcdef"]
    rows.write_text(json.dumps(few))
    words = ["--model_name_or_path", str(tuned), "--compare_with", str(lab.folder / "base"), "--prompt", "alpaca_short"]
    words += ["--data", str(rows), "--max_new_tokens", "3", "--metrics", "exact_match,token_f1"]
    words += ["--judge_backend", "openai", "--judge_model", "stub", "--judge_control_rows", "1"]
    words += ["--judge_base_url", judge, "--output_dir"]
    return Work(
        what="eval_responses.py (answering, scoring, judging, report)",
        script="eval_responses",
        arguments=lambda folder: [*words, str(folder)],
        early=lambda folder: [*words, str(folder), "--limit", "2"],
    )


def inspecting(lab: Lab, rows: int) -> list[Work]:
    """`--export` to a file that is there, to a new folder, and `--prepare`."""
    path = lab.folder / "many.json"
    words = ["yes", "no", "a longer word", "quite a few words that take more room"]
    many = [{"instruction": f"Say number {row}.", "output": f"{words[row % 4]} {row}"} for row in range(rows)]
    path.write_text(json.dumps(many))
    base = ["--model_name_or_path", str(lab.folder / "base"), "--prompt", "alpaca_short"]

    def export(name: str, data: Path, folder: Path) -> list[str]:
        page = ["--html", str(folder / "rows.html"), "--audit_allow", "[near_duplicate, near_split_overlap]"]
        return [*base, "--data", str(data), "--export", str(folder / name), *page]

    def prepare(folder: Path) -> list[str]:
        place = ["--prepared", str(folder / "set"), "--prepare", "--max_length", "64", "--split", "hash"]
        return [*base, "--data", str(path), *place, "--output_dir", str(folder / "run")]

    return [
        Work(
            what="inspect_data.py --export FILE --html",
            script="inspect_data",
            arguments=partial(export, "clean.jsonl", path),
            early=partial(export, "clean.jsonl", lab.folder / "rows.json"),
        ),
        Work(what="inspect_data.py --export FOLDER", script="inspect_data", arguments=partial(export, "clean", path)),
        Work(what="train_sft.py --prepare", script="train_sft", arguments=prepare),
    ]


def script_rows(lab: Lab) -> list[Row]:
    return [row for work in inspecting(lab, 2000) for row in rows_of(lab, work)]


def evaluation_rows(lab: Lab) -> list[Row]:
    others = (Scripts(lab), Harness(lab))
    killed = "; ".join(each.killed() for each in others)
    short = "; ".join(each.short(full_disk) for each in others) if may_mount(lab) else "skipped"
    print(killed, short, sep="\n", flush=True)
    with serve_judge(lambda body: '{"reasoning": "as asked", "score": 50}') as stub:
        return [
            (*row[:2], theirs)
            for row, theirs in zip(rows_of(lab, answering(lab, stub.url)), (killed, short), strict=True)
        ]


def rows_of(lab: Lab, work: Work, points: int = POINTS) -> list[Row]:
    bench = Bench(lab, work)
    at_changes, at_random = bench.killed_at_changes(points), bench.killed_at_random(points)
    killed = f"{of(at_changes)} at changes of a file, {of(at_random)} at random: old or new files, and the end"
    full = "skipped: mounting is not allowed here"
    if may_mount(lab):
        short = bench.short_of_room(points // 2)
        full = f"{of(short)} name the file and keep what was there; the same command ends once there is room"
    print(killed, full, sep="\n", flush=True)
    return [
        (f"kill -9 to {work.what}", killed, "has none"),
        (f"a disk that fills up under {work.what}", full, "has none"),
    ]


def arena_rows(lab: Lab, points: int = 2 * POINTS) -> list[Row]:
    """A server that is killed while one votes loses no vote that the page has told, and asks for none twice."""
    files = {}
    for name in ("one", "other"):
        rows = [
            {"instruction": f"Say {row}.", "output": "", "row_id": row, "model_response": name} for row in range(5000)
        ]
        files[name] = str(lab.folder / f"{name}.json")
        Path(files[name]).write_text(json.dumps(rows))
    votes = lab.folder / "votes.jsonl"
    told = survived = 0
    for _ in range(points):
        with served("--responses", json.dumps(files), "--votes", votes) as (url, server):
            voter = Voter(url, "Ada")
            timer = Timer(lab.random.uniform(0.05, 1.5), server.kill)
            timer.start()
            try:
                while True:
                    told += voter.vote()
            except (OSError, HTTPException, json.JSONDecodeError):
                timer.join()
        kept = read_kept(votes, dict)
        voted = [value["row_id"] for value in kept.values]
        survived += not kept.damaged and told <= len(voted) == len(set(voted))
        told = len(voted)
    ours = f"{survived} of {points}: each of {told} votes once, all that the page told among them"
    found = [("kill -9 to arena.py while one votes", ours, "has none")]
    if may_mount(lab):
        found.append(("a disk that fills up under arena.py", full_votes(lab, files), "has none"))
    return found


def full_votes(lab: Lab, files: dict[str, str]) -> str:
    with full_disk(lab.new(), size="64k") as disk:
        votes, filler = disk / "votes.jsonl", disk / "filler"
        with served("--responses", json.dumps(files), "--votes", votes) as (url, server):
            voter = Voter(url, "Ada")
            assert voter.vote()
            filler.write_bytes(bytes(shutil.disk_usage(disk).free))
            counted = 1
            while voter.vote():  # what is left of the file's last page
                counted += 1
            filler.unlink()
            counted += voter.vote()
            server.kill()
            said = server.stdout.read()
        kept = read_kept(votes, dict)
        good = len(kept.values) == counted and f"{votes} cannot be written (No space left on device)" in said
        return "the vote is refused, the terminal names the file, the next one counts" if good else f"FAILED: {said}"
