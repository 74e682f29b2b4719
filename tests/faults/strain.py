"""What a machine and its people do to a long run: it is stopped, its clock jumps, memory is short, files are edited."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

from faults import injection
from faults.harness import kill, wait, wait_until
from faults.lab import Lab, Row, count, of
from heed.runs import checkpoints

STOPPED = 3.0  # seconds
MIB = 2**20
ROOMS = [step * 32 * MIB for step in range(20)]
"""What a training may take beyond what a process has that has imported everything."""
HANGS = 120.0


def strain_rows(lab: Lab) -> list[Row]:
    parts = (partial(stopped, world=1, times=10), partial(stopped, world=2, times=4), clock, base_gone, edited, memory)
    found = []
    for part in parts:
        found.append(part(lab))
        print(f"  {found[-1]}", flush=True)
    return found


def interrupted(lab: Lab) -> Path:
    """What a kill after the checkpoint of step 6 leaves."""
    folder = lab.new()
    running = lab.start(folder)
    wait_until(lambda: (folder / "checkpoint-6").is_dir(), running)
    kill(running)
    return folder


def stopped(lab: Lab, *, world: int, times: int) -> Row:
    """SIGSTOP at random moments, of one process after the other, and SIGCONT seconds later."""
    exact = []
    for number in range(times):
        folder = lab.new()
        running = lab.start(folder, world=world)
        wait_until(lambda folder=folder: (folder / "checkpoint-2").is_dir(), running)  # type: ignore[misc]
        time.sleep(lab.random.uniform(0.0, 0.3))
        pid = running[number % world].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        time.sleep(STOPPED)
        os.kill(pid, signal.SIGCONT)
        exact.append(wait(running) == [0] * world and lab.exact(folder, world=world))
    whom = "one process" if world == 1 else "either of two processes"
    return (f"SIGSTOP to {whom}, SIGCONT {STOPPED:.0f} s later", f"{of(exact)} exact", "not run")


def clock(lab: Lab) -> Row:
    """A day back: in the middle of a run, and between a kill and the next start."""
    back = partial(injection.clock_set_back, 86400.0)
    running, resumed = lab.new(), interrupted(lab)
    good = []
    for folder, prepare in ((running, partial(injection.at_step, 6, back)), (resumed, back)):
        codes = lab.run(folder, prepare=prepare)
        numbers = [value for line in read_metrics(folder) for name, value in line.items() if "second" in name]
        seconds = json.loads((folder / "run.json").read_text())["seconds_of_all_starts"]
        good.append(codes == [0] and lab.exact(folder) and min([seconds, *numbers]) >= 0)
    theirs = lab.new()
    code = wait([lab.stock(theirs, prepare=partial(injection.at_step, 6, back))])[0]
    log = json.loads((theirs / "log.json").read_text()) if code == 0 else []
    runtime = next((line["train_runtime"] for line in log if "train_runtime" in line), None)
    return (
        "a clock set back by a day, in a run and between two starts",
        f"{of(good)} exact, no negative seconds in any file",
        f"exit {code}, logs train_runtime {runtime}",
    )


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def memory(lab: Lab) -> Row:
    """A limit on the address space (ulimit -v), from too little for anything to enough."""
    lab.reference(3, 1)
    ours, theirs, after = [], [], []
    for room in ROOMS:
        folder, prepare = lab.new(), partial(injection.little_memory, room)
        lab.log.write_text("")
        [code] = wait(lab.start(folder, prepare=prepare), HANGS)
        said = lab.log.read_text()
        last = next((line for line in reversed(said.splitlines()) if line.startswith("error: ")), "")
        ours.append("exact" if code == 0 and lab.exact(folder) else outcome(code, bool(last)))
        if ours[-1] not in ("exact", "one sentence"):
            print(f"  {room // MIB} MiB: {code} {said[-1500:]}", flush=True)
        after.append(lab.goes_on(folder))
        [code] = wait([lab.stock(lab.new(), prepare=prepare)], HANGS)
        theirs.append(outcome(code, False))
    text = f"{count(ours)}; {of(after)} exact after the same command without it"
    return (f"{len(ROOMS)} limits of memory (ulimit -v), from too little to enough", text, count(theirs))


def outcome(code: int | None, sentence: bool) -> str:
    if code is None:
        return "hang"
    return "ended" if code == 0 else "one sentence" if code == 2 and sentence else f"exit {code}"


def base_gone(lab: Lab) -> Row:
    """The model that a run began from is deleted before the run is continued."""
    folder, base, aside = interrupted(lab), lab.folder / "base", lab.folder / "aside"
    base.rename(aside)
    lab.log.write_text("")
    codes = lab.run(folder)
    said = lab.log.read_text()
    aside.rename(base)
    good = codes == [2] and str(base) in said and "Traceback" not in said
    ours = "one sentence, exact once it is back" if good and lab.goes_on(folder) else f"FAILED: {said[-500:]}"
    return ("the base model deleted before a run is continued", ours, "not run")


def edited(lab: Lab) -> Row:
    """Files of the newest checkpoint, changed as a person would, in ways that still load."""
    folder, exact = interrupted(lab), []
    newest = checkpoints.checkpoints(folder)[-1].name
    for edit in EDITS:
        copy = lab.new()
        shutil.copytree(folder, copy)
        edit(copy / newest)
        lab.log.write_text("")
        exact.append(lab.goes_on(copy) and f"resume    {newest} is not usable" in lab.log.read_text())
    everywhere = lab.new()
    shutil.copytree(folder, everywhere)
    for each in checkpoints.checkpoints(everywhere):
        faster(each)
    exact.append(lab.goes_on(everywhere))
    text = f"{of(exact)} noticed, an older one taken or the run begun again; exact"
    return (f"a checkpoint edited by hand ({len(exact)} cases)", text, "not run")


def in_json(name: str, key: str, value: Any) -> Callable[[Path], None]:
    def edit(checkpoint: Path) -> None:
        path = checkpoint / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}, indent=2))

    return edit


def doubled(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})


def faster(checkpoint: Path) -> None:
    """Another learning rate in the optimizer's state, of the same length in the file."""
    import torch

    path = checkpoint / "optimizer.pt"
    state = torch.load(path, weights_only=True)
    for group in state["param_groups"]:
        group["lr"] = 1.0
    torch.save(state, path)


EDITS: tuple[Callable[[Path], None], ...] = (
    in_json("trainer_state.json", "global_step", 5),
    in_json("trainer_state.json", "epoch", 0.5),
    in_json("config.json", "layer_norm_epsilon", 1.0),
    in_json("prompt_contract.json", "name", "another"),
    in_json("MANIFEST.json", "step", 4),
    doubled,
    faster,
)
