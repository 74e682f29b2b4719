"""The work of an evaluation by lm_eval and by transformers' example scripts: what kill -9 and a full disk do to it."""

import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets

from faults import stock
from faults.harness import wait
from faults.injection import die
from faults.lab import Lab, of
from world.small_world import gpt2, save_model

ROWS = 400
POINTS = 6
DISK = 8 << 20
TASK = """\
task: own
dataset_path: json
dataset_kwargs: {data_files: {test: ROWS}}
test_split: test
output_type: generate_until
doc_to_text: "{{instruction}}"
doc_to_target: "{{output}}"
generation_kwargs: {until: [never], max_gen_toks: 32, do_sample: false}
metric_list: [{metric: exact_match}]
"""
ANSWERED = re.compile(r"Running generate_until requests: .*?(\d+)/")
CACHED = re.compile(r"Cached requests: (\d+),")
Disk = Callable[[Path], Any]


class Harness:
    """lm_eval with one task of its own, from the command line's function on."""

    name = f"lm_eval {version('lm_eval')}"

    def __init__(self, lab: Lab) -> None:
        self.lab, self.log = lab, lab.folder / "lm_eval.log"
        rows, task = lab.folder / "asked.jsonl", lab.folder / "task" / "own.yaml"
        asked = [{"instruction": f"Say number {row}.", "output": f"yes {row}"} for row in range(ROWS)]
        rows.write_text("".join(json.dumps(row) + "\n" for row in asked))
        task.parent.mkdir()
        task.write_text(TASK.replace("ROWS", str(rows)))
        model = save_model(lab.folder / "asked", gpt2(n_layer=1))
        self.words = ["run", "--model", "hf", "--model_args", f"pretrained={model}", "--device", "cpu"]
        self.words += ["--tasks", "own", "--include_path", str(task.parent), "--batch_size", "4", "--log_samples"]

    def start(self, folder: Path, *, cached: bool) -> Any:
        self.log.write_text("")
        cache = ["--use_cache", str(folder / "cache")] if cached else []
        words = [*self.words, "--output_path", str(folder / "out"), *cache]
        return self.lab.forks.start(lm_eval, words, self.lab.folder / "datasets", self.log)

    def answers(self, folder: Path) -> list[Any] | None:
        """Of the run's last file of samples; None without a whole one."""
        files = sorted(folder.rglob("samples_*.jsonl"))
        try:
            found = [json.loads(line)["resps"] for line in files[-1].read_text().splitlines()] if files else []
        except json.JSONDecodeError:
            return None
        return found if len(found) == ROWS else None

    def whole(self, *, cached: bool) -> tuple[Path, list[Any], float]:
        """A run that nobody broke, its answers and how long it answered."""
        folder = self.lab.new()
        process = self.start(folder, cached=cached)
        began = self.answering(process)
        wait([process])
        found = self.answers(folder)
        assert process.exitcode == 0 and found is not None, self.log.read_text()[-2000:]
        return folder, found, time.monotonic() - began

    def answering(self, process: Any) -> float:
        while process.is_alive() and not ANSWERED.search(self.log.read_text()):
            time.sleep(0.01)
        return time.monotonic()

    def killed(self) -> str:
        plain, cached = self.killed_while_answering(cached=False), self.killed_while_answering(cached=True)
        return f"{self.name}: {plain}; with `--use_cache`: {cached}"

    def short(self, full_disk: Disk) -> str:
        plain, cached = self.short_of_room(full_disk, cached=False), self.short_of_room(full_disk, cached=True)
        return f"{self.name}: {plain}; with `--use_cache`: {cached}"

    def killed_while_answering(self, *, cached: bool) -> str:
        """And the same command given again."""
        _, answers, seconds = self.whole(cached=cached)
        answered = kept = 0
        ended: list[bool] = []
        while len(ended) < POINTS:
            folder = self.lab.new()
            process = self.start(folder, cached=cached)
            self.answering(process)
            process.join(self.lab.random.uniform(0.0, 0.7 * seconds))
            process.kill()
            if wait([process]) == [-signal.SIGKILL]:
                answered += int(ANSWERED.findall(self.log.read_text())[-1])
                code = wait([self.start(folder, cached=cached)])[0]
                kept += sum(map(int, CACHED.findall(self.log.read_text())))
                ended.append(code == 0 and self.answers(folder) == answers)
            shutil.rmtree(folder, ignore_errors=True)
        return f"{of(ended)} end, {kept} of at least {answered} answers kept"

    def short_of_room(self, full_disk: Disk, *, cached: bool) -> str:
        whole, answers, _ = self.whole(cached=cached)
        outcomes = []
        for _ in range(POINTS // 2):
            with full_disk(self.lab.new()) as disk:
                with little_room(self.lab, disk, whole):
                    code = wait([self.start(disk, cached=cached)])[0]
                    missing = self.answers(disk) is None
                again = wait([self.start(disk, cached=cached)])[0]
                outcomes.append((code, missing, again == 0 and self.answers(disk) == answers))
        codes = exits(each[0] for each in outcomes)
        lost, ended = [each[1] for each in outcomes], [each[2] for each in outcomes]
        return f"{codes}; {of(lost)} without a whole file of answers; {of(ended)} end once there is room"


def lm_eval(arguments: Sequence[str], cache: Path, log: Path) -> None:
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.tasks import TaskManager

    with log.open("a") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    datasets.config.HF_DATASETS_CACHE = cache
    TaskManager.__init__.__defaults__ = (None, None, False, None)  # 13,000 tasks of its own need not be read
    sys.argv = ["lm_eval", *arguments]
    cli_evaluate()


@contextmanager
def little_room(lab: Lab, disk: Path, whole: Path) -> Iterator[None]:
    """Less room on a disk than a whole run takes, while this lasts."""
    size = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    filler = disk / "filler"
    filler.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - int(lab.random.uniform(0, 0.9 * size)))))
    yield
    filler.unlink()


class Scripts:
    """The end of transformers' example scripts."""

    name = f"transformers {version('transformers')}'s scripts"

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def start(self, folder: Path, prepare: Callable[[], None] | None = None) -> Any:
        work = partial(stock.forked, work=stock.evaluate)
        return self.lab.forks.start(work, self.lab.folder, folder, 1, self.lab.log, prepare)

    def killed(self) -> str:
        """As it writes each file of results; then the same command."""
        ended = []
        for number in range(1, 5):
            folder = self.lab.new()
            assert wait([self.start(folder, partial(die_before_the_end_of_file, number))]) == [-signal.SIGKILL]
            ended.append(wait([self.start(folder)]) == [0])
        return f"{self.name}: no answer kept; killed while they write results, {of(ended)} end"

    def short(self, full_disk: Disk) -> str:
        codes, ended = set(), []
        whole = self.lab.new()
        assert wait([self.start(whole)]) == [0]
        for _ in range(POINTS // 2):
            with full_disk(self.lab.new()) as disk:
                with little_room(self.lab, disk, whole):
                    codes.add(wait([self.start(disk / "run")])[0])
                ended.append(wait([self.start(disk / "run")]) == [0])
        return f"{self.name}: {exits(codes)}; {of(ended)} end once there is room"


def exits(codes: Iterable[int | None]) -> str:
    return ", ".join(sorted({f"exit {code}" for code in codes}))


def die_before_the_end_of_file(number: int) -> None:
    """Have this process killed when so many of its results are written and not yet closed."""
    dump, written = json.dump, 0

    def wrapped(value: Any, file: Any, **more: Any) -> None:
        nonlocal written
        dump(value, file, **more)
        written += 1
        if written == number:
            die()

    json.dump = wrapped  # type: ignore[assignment]
