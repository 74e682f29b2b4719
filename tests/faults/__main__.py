"""`make faults`: what kills trainings, done for real to Heed and to transformers' Trainer; writes docs/reliability.md.

OMP_NUM_THREADS=1 PYTHONPATH=.:tests python -m faults [--seed 1] [--kills 100] [--kills2 30] [--only "NaN,storm"]
"""

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from faults import injection
from faults.harness import ROOT, kill, state, wait, wait_until
from faults.lab import Lab, Row, count, of
from faults.scripts import arena_rows, evaluation_rows, script_rows
from faults.strain import strain_rows
from heed.files import run_folder
from heed.runs import checkpoints

DOCUMENT = ROOT / "docs" / "reliability.md"
FIGURES = DOCUMENT.with_suffix(".json")
BEGIN, END = "<!-- make faults writes from here -->", "<!-- to here -->"
EPOCHS = 12
DAMAGES = ("deleted", "cut in half", "emptied", "one bit flipped", "another bit flipped")
OURS = (
    "model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "config.json",
    "tokenizer.json",
    "prompt_contract.json",
    "MANIFEST.json",
)
THEIRS = (*OURS[:7], "training_args.bin")


def kill_points(lab: Lab) -> list[Row]:
    ours, theirs = [], []
    for point in (*injection.POINTS, *injection.OWN_POINTS):
        folder = lab.new()
        own = point in injection.OWN_POINTS
        inject = partial(injection.die_in_own_code if own else injection.die_in_stock_code, point)
        assert lab.run(folder, prepare=inject) == [-signal.SIGKILL], point
        ours.append(lab.goes_on(folder))
        if not own:
            folder = lab.new()
            assert wait([lab.stock(folder, prepare=inject)]) == [-signal.SIGKILL], point
            theirs.append(lab.stock_ends(folder))
    shared = len(injection.POINTS)
    return [
        ("kill -9 at 10 points while a checkpoint is written", f"{of(ours[:shared])} exact", count(theirs)),
        ("kill -9 at 4 more: manifest, renaming, rotation", f"{of(ours[shared:])} exact", "has none"),
    ]


def storm(lab: Lab, kills: int, world: int, minutes: float) -> tuple[int, int, int]:
    """Kills at random moments, the same command after each, run after run. Returns kills, runs ended, runs exact.

    One kill in five falls anywhere before the training begins, the others into its first second. No kill is begun after
    so many `minutes`.
    """
    lab.reference(EPOCHS, world)
    until = time.monotonic() + 60 * minutes
    done = ended = exact = 0
    folder = lab.new()
    while True:
        processes = lab.start(folder, epochs=EPOCHS, world=world)
        calm = done >= kills or time.monotonic() > until
        if not calm:
            if lab.random.random() < 0.8:
                began = partial(has_begun, folder, processes[0].pid)
                while not began() and any(process.is_alive() for process in processes):
                    time.sleep(0.005)
            time.sleep(lab.random.uniform(0.0, 1.0))
        else:
            wait(processes)
        codes = [process.exitcode for process in processes]
        if codes != [0] * world:
            assert not calm and set(codes) <= {None, 0}, (codes, lab.log.read_text()[-4000:])
            for process in lab.random.sample(processes, world):
                process.kill()
            wait(processes)
            done += 1
            continue
        ended += 1
        exact += lab.exact(folder, EPOCHS, world)
        print(f"  storm on {world}: {done} kills, {exact} of {ended} runs exact", flush=True)
        if calm:
            return done, ended, exact
        shutil.rmtree(folder)
        folder = lab.new()


def has_begun(folder: Path, pid: int | None) -> bool:
    return (folder / run_folder.STATE_FILE).is_file() and state(folder)["process"] == pid


def storm_row(lab: Lab, kills: int, world: int, minutes: float) -> Row:
    done, ended, exact = storm(lab, kills, world, minutes)
    ours = f"{done} of {done} survived; {exact} of {ended} runs exact"
    theirs = stock_storm(lab, kills) if world == 1 else "not run"
    return (f"a storm of random kill -9, {world} process{'es' if world > 1 else ''}", ours, theirs)


def stock_storm(lab: Lab, kills: int) -> str:
    lab.stock_ends(lab.new(), EPOCHS)
    began = time.monotonic()
    lab.stock_ends(lab.new(), EPOCHS)
    length = time.monotonic() - began
    folder = lab.new()
    for survived in range(kills):
        process = lab.stock(folder, epochs=EPOCHS)
        time.sleep(lab.random.uniform(0.1, 1.1) * length)
        if process.exitcode not in (None, 0):
            return f"stuck for good after {survived} kills"
        if process.exitcode == 0:
            folder = lab.new()
        kill([process])
    return f"{kills} survived"


def damage(path: Path, how: str, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if how == "deleted":
        path.unlink()
    elif how == "cut in half":
        path.write_bytes(data[: len(data) // 2])
    elif how == "emptied":
        path.write_bytes(b"")
    else:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)


def damaged_files(lab: Lab) -> list[Row]:
    """The newest of three checkpoints is damaged; the one before it must be taken."""
    folder, ours = lab.new(), []
    running = lab.start(folder)
    wait_until(lambda: (folder / "checkpoint-6").is_dir(), running)
    kill(running)
    newest, before = reversed(checkpoints.checkpoints(folder)[-2:])
    for file in OURS:
        for how in DAMAGES:
            copy = lab.new()
            shutil.copytree(folder, copy)
            damage(copy / newest.name / file, how, lab.random)
            said: list[str] = []
            found = checkpoints.newest_whole(copy, said.append)
            ours.append(found is not None and found.path.name == before.name and len(said) == 1)
            if how == "one bit flipped":  # and now in earnest
                ours[-1] &= lab.goes_on(copy)
            shutil.rmtree(copy)
    theirs = []
    folder = lab.new()
    process = lab.stock(folder)
    wait_until(lambda: (folder / "checkpoint-8").is_dir(), [process])
    kill([process])
    for later in checkpoints.checkpoints(folder)[2:]:
        shutil.rmtree(later)
    newest = checkpoints.checkpoints(folder)[-1]
    for file in THEIRS:
        for how in DAMAGES:
            copy = lab.new()
            shutil.copytree(folder, copy)
            damage(copy / newest.name / file, how, lab.random)
            theirs.append(lab.stock_ends(copy))
            shutil.rmtree(copy)
    return [
        (
            f"a damaged file in the newest checkpoint ({len(ours)} cases; Trainer {len(theirs)})",
            f"{of(ours)} noticed, older one taken",
            count(theirs),
        )
    ]


def signals(lab: Lab) -> list[Row]:
    ours, seconds = [], []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        for world in (1, 2):
            for rank in range(world):
                folder = lab.new()
                processes = lab.start(folder, epochs=EPOCHS, world=world)
                wait_until(lambda folder=folder: (folder / "checkpoint-4").is_dir(), processes)  # type: ignore[misc]
                began = time.monotonic()
                pid = processes[rank].pid
                assert pid is not None
                os.kill(pid, number)
                codes = wait(processes)
                seconds.append(time.monotonic() - began)
                found = state(folder)
                good = codes == [128 + number] * world and found["status"] == "preempted"
                good &= checkpoints.verify(folder / found["checkpoint"]).step == found["step"]
                ours.append(good and lab.goes_on(folder, EPOCHS, world))
    folder = lab.new()
    process = lab.stock(folder, epochs=EPOCHS)
    wait_until(lambda: (folder / "checkpoint-4").is_dir(), [process])
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    code = wait([process])[0]
    theirs = f"SIGTERM: exit {code}, no checkpoint"
    text = f"{of(ours)} checkpoint, exit 128+n, exact after ({max(seconds):.1f} s at most)"
    return [("SIGTERM, SIGINT, SIGUSR1 to one process, and to either of two", text, theirs)]


def launch(lab: Lab, folder: Path, launcher: Sequence[str], world: int) -> "subprocess.Popen[bytes]":
    command = [*launcher, "train_sft.py", "--config", str(lab.config), "--output_dir", str(folder)]
    command += ["--num_train_epochs", str(10 * EPOCHS), "--per_device_train_batch_size", str(4 // world)]
    with lab.log.open("a") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def launchers(lab: Lab) -> list[Row]:
    """SIGTERM and kill -9 to the launcher itself; its workers must end, with a checkpoint."""
    binary = Path(sys.executable).parent
    kinds = {
        "accelerate launch, 1 process": ([str(binary / "accelerate"), "launch", "--cpu", "--num_processes", "1"], 1),
        "torchrun, 2 processes": (
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
            2,
        ),
    }
    rows = []
    for name, (launcher, world) in kinds.items():
        for number in (signal.SIGTERM, signal.SIGKILL):
            folder = lab.new()
            running = launch(lab, folder, launcher, world)
            until = time.monotonic() + 180
            while not (folder / "checkpoint-4").is_dir():
                assert running.poll() is None and time.monotonic() < until, lab.log.read_text()[-3000:]
                time.sleep(0.02)
            worker = state(folder)["process"]
            running.send_signal(number)
            began = time.monotonic()
            while alive(worker) and time.monotonic() - began < 60:
                time.sleep(0.02)
            took = time.monotonic() - began
            running.wait(60)
            found = state(folder)
            good = not alive(worker) and found["status"] == "preempted"
            good = good and checkpoints.verify(folder / found["checkpoint"]).step == found["step"]
            what = "kill -9" if number == signal.SIGKILL else "SIGTERM"
            ours = f"worker gone after {took:.1f} s with a verified checkpoint" if good else f"FAILED: {found}"
            rows.append((f"{what} to the launcher ({name})", ours, "not run"))
    folder = lab.new()
    command = [
        str(binary / "accelerate"),
        "launch",
        "--cpu",
        "--num_processes",
        "1",
        str(ROOT / "tests/faults/stock.py"),
    ]
    with lab.log.open("a") as log:
        running = subprocess.Popen(
            [*command, str(lab.folder), str(folder), str(100 * EPOCHS)],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    until = time.monotonic() + 180
    while not (folder / "checkpoint-4").is_dir():
        assert running.poll() is None and time.monotonic() < until, lab.log.read_text()[-3000:]
        time.sleep(0.02)
    [orphan] = [int(pid) for pid in children(running.pid)]
    running.kill()
    running.wait()
    before = checkpoints.step_of(checkpoints.checkpoints(folder)[-1])
    time.sleep(5)
    trained_on = alive(orphan) and checkpoints.step_of(checkpoints.checkpoints(folder)[-1]) > before
    if alive(orphan):
        os.kill(orphan, signal.SIGKILL)
    theirs = "the orphan trains on" if trained_on else "ended"
    rows[1] = (*rows[1][:2], theirs)
    return rows


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def full_disk(lab: Lab) -> list[Row]:
    disk = lab.folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        return [("a full disk", "skipped: mounting is not allowed here", "skipped")]
    try:
        refused = lab.run(disk / "a", "--save_total_limit", "100", epochs=EPOCHS)
        said = lab.log.read_text()[-2000:]
        shutil.rmtree(disk / "a")
        preflight = refused == [2] and "the disk of" in said
        folder, filler = disk / "b", disk / "filler"
        running = lab.start(folder, "--save_total_limit", "2")
        wait_until(lambda: (folder / "checkpoint-4").is_dir(), running)
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                pass
        codes = wait(running)
        found = state(folder)
        whole = checkpoints.newest_whole(folder, print)
        stopped = codes == [2] and found["status"] in ("failed", "running") and whole is not None
        filler.unlink()
        again = lab.run(folder, "--save_total_limit", "2") == [0] and lab.exact(folder)
        good = preflight and stopped and again
        ours = "refused before step 0 where foreseen; else exit 2, the last checkpoint whole, exact once freed"
        ours = ours if good else f"FAILED: {preflight=} {stopped=} {again=}"
        shutil.rmtree(folder)
        process = lab.stock(disk / "c")
        wait_until(lambda: (disk / "c" / "checkpoint-4").is_dir(), [process])
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                pass
        code = wait([process])[0]
        filler.unlink()
        theirs = f"exit {code}; once freed: {lab.stock_ends(disk / 'c')}"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    return [("a disk that fills up", ours, theirs)]


def not_a_number(lab: Lab) -> list[Row]:
    folder = lab.new()
    codes = lab.run(folder, prepare=partial(injection.not_a_number_at, 6))
    said = [line for line in lab.log.read_text().splitlines() if line.startswith("error: step")][-1:]
    named = bool(said) and said[0].startswith("error: step 6: ") and "Its rows: " in said[0]
    good = codes == [2] and named and lab.goes_on(folder)
    theirs = lab.new()
    code = wait([lab.stock(theirs, prepare=partial(injection.not_a_number_at, 6))])[0]
    broken = sum(int((tensor != tensor).any()) for tensor in load_file(theirs / "model.safetensors").values())
    log = json.loads((theirs / "log.json").read_text())
    losses = [line["loss"] for line in log if "loss" in line and line["step"] > 6]
    ours = (
        "exit 2, names step and rows, no weight touched, exact once the cause is gone"
        if good
        else f"FAILED: {codes} {said}"
    )
    return [
        ("a loss that is NaN at one step", ours, f"exit {code}, {broken} tensors of NaN saved, logs loss {losses[-1]}")
    ]


def two_runs(lab: Lab) -> list[Row]:
    folder = lab.new()
    running = lab.start(folder, epochs=10 * EPOCHS)
    wait_until(lambda: (folder / "checkpoint-2").is_dir(), running)
    second = lab.run(folder, epochs=10 * EPOCHS, prepare=injection.impatient)
    named = f"is in use by process {running[0].pid} on" in lab.log.read_text()
    kill(running)
    return [
        (
            "a second run in the same folder",
            "refused, names the other's process" if second == [2] and named else "FAILED",
            "not run",
        )
    ]


def main() -> None:
    """Each section that is run replaces its earlier figures; the document shows all."""
    sections: dict[str, Callable[[Lab], list[Row]]] = {
        "NaN": not_a_number,
        "two runs": two_runs,
        "disk": full_disk,
        "signals": signals,
        "launchers": launchers,
        "kill points": kill_points,
        "storm": lambda lab: [storm_row(lab, options.kills, 1, options.minutes)],
        "storm on two": lambda lab: [storm_row(lab, options.kills2, 2, options.minutes)],
        "damages": damaged_files,
        "strain": strain_rows,
        "scripts": script_rows,
        "evaluation": evaluation_rows,
        "arena": arena_rows,
    }
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--kills2", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=30, help="of each storm, at most")
    parser.add_argument("--only", default=",".join(sections))
    options = parser.parse_args()
    figures = json.loads(FIGURES.read_text()) if FIGURES.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), options.seed)
        for name in options.only.split(","):
            began = time.monotonic()
            rows = sections[name](lab)
            figures[name] = {
                "rows": rows,
                "seed": options.seed,
                "minutes": round((time.monotonic() - began) / 60, 1),
                "date": time.strftime("%Y-%m-%d"),
                "versions": {
                    each: run_folder.versions()[each] for each in ("python", "torch", "transformers", "accelerate")
                },
            }
            print("\n".join(" | ".join(row) for row in rows), flush=True)
            FIGURES.write_text(
                json.dumps({each: figures[each] for each in sections if each in figures}, indent=1) + "\n"
            )
            write(figures)


def write(figures: Mapping[str, Mapping[str, Any]]) -> None:
    rows = [row for found in figures.values() for row in found["rows"]]
    seeds = sorted({found["seed"] for found in figures.values()})
    dates = sorted({found["date"] for found in figures.values()})
    versions = next(iter(figures.values()))["versions"]
    lines = [
        BEGIN,
        f"Seed {', '.join(map(str, seeds))}; {sum(found['minutes'] for found in figures.values()):.0f} minutes on "
        f"{len(os.sched_getaffinity(0))} cores with other work ({platform.machine()}), {' to '.join(dates)}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".",
        "",
        "| fault | Heed | another: transformers.Trainer, resumed from its last checkpoint, where none is named |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        END,
    ]
    text = DOCUMENT.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    DOCUMENT.write_text(before + "\n".join(lines) + after, encoding="utf-8")


if __name__ == "__main__":
    main()
