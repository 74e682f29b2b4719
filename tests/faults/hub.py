"""`make faults-hub`: what a Hub can do to a training that pushes to it, done to Heed and to transformers' Trainer.

OMP_NUM_THREADS=1 PYTHONPATH=.:tests python -m faults.hub [--ours] [--only "500,reset"]

Writes its table into docs/reliability.md; with --ours it only says whether Heed passed, and leaves the document alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

from faults.harness import ROOT, Forks, free_port, script, wait, weights, write_config
from world.loopback_hub import WRITE_TOKEN, Fault, Hub, environment, running

DOCUMENT = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- make faults-hub writes from here -->", "<!-- to here, faults-hub -->"
EPOCHS = 8
WAIT = 5.0
HANGS = 60.0
WITHIN = "checkpoint-4"  # faults during the run begin when this exists


@dataclass(frozen=True, kw_only=True)
class Outage:
    """`at_start`: there before the run is; `gone`: there is no server at all."""

    name: str
    faults: tuple[Fault, ...] = ()
    at_start: bool = True
    gone: bool = False
    no_room: bool = False


COMMIT = "POST .*/commit/"
OUTAGES = (
    Outage(name="none"),
    Outage(name="refused from the start", gone=True),
    Outage(name="killed during the run", gone=True, at_start=False),
    Outage(name="429 once", faults=(Fault(match=COMMIT, times=1, status=429, headers={"Retry-After": "1"}),)),
    Outage(name="500 once", faults=(Fault(match=COMMIT, times=1, status=500),)),
    Outage(name="500 always", faults=(Fault(match=COMMIT, status=500),)),
    Outage(name="connection reset, twice", faults=(Fault(match=COMMIT, times=2, reset=True),)),
    Outage(name="slow: 1 s for each request", faults=(Fault(match="PUT|POST", seconds=1.0),)),
    Outage(name="the token expires", faults=(Fault(match="POST", status=401),), at_start=False),
    Outage(name="accepts and never answers", faults=(Fault(match="", seconds=3600),), at_start=False),
    Outage(name="no room on the disk for what waits", no_room=True, at_start=False),
)


def stock(folder: Path, output_dir: Path, log: Path) -> None:
    """Trainer as its documentation says: push_to_hub, and a last push at the end."""
    from faults.stock import train as train_stock

    with log.open("a") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    hub = {"push_to_hub": True, "hub_model_id": "tester/stock", "hub_strategy": "every_save"}
    train_stock(folder, output_dir, EPOCHS, **hub)


@contextmanager
def small_disk(folder: Path, until: Callable[[], bool]) -> Iterator[None]:
    """A file system of 64 KB at `folder`, once the run is there."""
    began = time.monotonic()
    while not until() and time.monotonic() - began < HANGS:
        time.sleep(0.002)
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def befall(outage: Outage, start: Callable[[], BaseProcess], run: Path, root: Path, port: int) -> tuple[str, float]:
    """Start a training, let the outage befall it, and say how it ended and after how many seconds."""
    with ExitStack() as held:
        server = ExitStack()
        hub: Hub | None = None
        if not (outage.gone and outage.at_start):
            hub = server.enter_context(running(root, port))
            held.callback(server.close)
        if hub is not None and outage.at_start:
            hub.faults = [Fault(**vars(fault)) for fault in outage.faults]
        began = time.monotonic()
        process = start()
        if outage.no_room:
            held.enter_context(small_disk(run / ".outbox", (run / "run.json").is_file))
        elif not outage.at_start:
            while not (run / WITHIN).is_dir() and process.is_alive():
                time.sleep(0.002)
            if outage.gone:
                server.close()
            elif hub is not None:
                hub.faults = [Fault(**vars(fault)) for fault in outage.faults]
        [code] = wait([process], HANGS)
        took = time.monotonic() - began
    return ("hangs" if took >= HANGS else f"exit {code}"), took


def arrived(run: Path, repository: Path) -> bool:
    pushed = repository / "model.safetensors"
    return pushed.is_file() and (run / "model.safetensors").is_file() and weights(run) == weights(repository)


def secrets(root: Path) -> list[str]:
    """Names of pushed files with the token, pickles or an optimizer in them."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return sorted(
        {
            path.name
            for path in files
            if path.suffix in (".bin", ".pt", ".pth") or WRITE_TOKEN.encode() in path.read_bytes()
        }
    )


class Lab:
    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        variables = environment(f"http://127.0.0.1:{self.port}", folder / "cache")
        os.environ.pop("HF_HUB_OFFLINE", None)
        # Before the forks' server imports the libraries, which read these only then.
        os.environ.update(
            {name: variables[name] for name in ("HF_ENDPOINT", "HF_HOME", "NO_PROXY", "HF_HUB_DISABLE_XET")}
        )
        os.environ["HF_TOKEN"] = WRITE_TOKEN
        self.config, self.log, self.forks = write_config(folder), folder / "log", Forks()
        self.whole = folder / "whole"
        assert wait([self.forks.start(script, "train_sft", self.words(self.whole), {}, self.log, None)]) == [0], (
            self.log.read_text()
        )

    def words(self, run: Path, *more: str) -> list[str]:
        return ["--config", str(self.config), "--output_dir", str(run), "--num_train_epochs", str(EPOCHS), *more]

    def ours(self, outage: Outage) -> tuple[bool, str]:
        run, root = self.folder / f"ours-{OUTAGES.index(outage)}", self.folder / f"hub-{OUTAGES.index(outage)}"
        root.mkdir()
        more = ("--push_to_hub", "true", "--hub_model_id", "tester/ours", "--hub_strategy", "checkpoints")
        words = self.words(run, *more, "--hub_wait", str(WAIT))
        end, took = befall(
            outage, partial(self.forks.start, script, "train_sft", words, {}, self.log, None), run, root, self.port
        )
        at_once = arrived(run, root / "models/tester/ours")
        with running(root, self.port):
            command = [sys.executable, "-m", "heed.hub", str(run)]
            sent = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANGS)
        exact = (run / "model.safetensors").is_file() and weights(run) == weights(self.whole)
        after = sent.returncode == 0 and arrived(run, root / "models/tester/ours")
        leaked = secrets(root)
        good = end == "exit 0" and exact and after and not leaked
        when = "the model has arrived" if at_once else "the model waits, and arrives after the outage"
        text = f"exit 0 after {took:.0f} s, exact; {when}"
        return good, text if good else f"FAILED: {end=} {exact=} {after=} {leaked=} {sent.stderr[-500:]}"

    def theirs(self, outage: Outage) -> str:
        if outage.no_room:
            return "has no queue"
        run, root = self.folder / f"stock-{OUTAGES.index(outage)}", self.folder / f"stockhub-{OUTAGES.index(outage)}"
        root.mkdir()
        start = partial(self.forks.start, stock, self.folder, run, self.log)
        end, took = befall(outage, start, run, root, self.port)
        there = arrived(run, root / "models/tester/stock")
        begun = any(run.glob("checkpoint-*"))
        if end == "hangs":
            return f"**hangs** (killed after {HANGS:.0f} s)"
        told = f"{end} after {took:.0f} s" + ("" if begun else ", before the first step")
        leaked = secrets(root)
        more = f"; on the Hub: {', '.join(leaked)}" if leaked else ""
        return f"{told}; the model {'has arrived' if there else '**is not on the Hub**'}{more}"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", action="store_true")
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    only = [part for part in asked.only.split(",") if part]
    failed, rows = 0, []
    with tempfile.TemporaryDirectory() as place:
        lab = Lab(Path(place))
        for outage in OUTAGES:
            if only and not any(part in outage.name for part in only):
                continue
            good, text = lab.ours(outage)
            failed += not good
            rows.append((outage.name, text, "" if asked.ours else lab.theirs(outage)))
            print(json.dumps(rows[-1]), flush=True)
    if not asked.ours and not only:
        write(rows)
    return int(failed > 0)


def write(rows: list[tuple[str, str, str]]) -> None:
    table = ["| the Hub | Heed | Trainer (`push_to_hub`, `every_save`, and a last `push_to_hub()`) |", "|---|---|---|"]
    table += [f"| {' | '.join(row)} |" for row in rows]
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    text = f"{before}{BEGIN}\n" + "\n".join(table) + f"\n{END}{after}"
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
