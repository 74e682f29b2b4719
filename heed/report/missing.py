"""Files that are not there: what the page would show of them, and the command that makes them."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heed.files import run_folder
from heed.report.evidence import Evidence
from heed.shipped import command

EVALUATE = command("eval_responses")
TRAIN = f"{command('train_sft')} --config CONFIG --output_dir RUN"

# file -> what the page shows of it
OF_TRAINING = {
    run_folder.RUN_FILE: "what was trained on what, with which versions",
    run_folder.METRICS_FILE: "loss curves",
    run_folder.CONTRACT_FILE: "the prompt the model expects",
}
OF_ANSWERING = {
    run_folder.RESPONSES_FILE: "the answers themselves",
    run_folder.EVALUATION_FILE: "what was asked of which models",
    run_folder.CONTROLS_FILE: "whether it reads the instruction",
}
OF_SCORING = {
    run_folder.ROWS_FILE: "metrics with their intervals",
    run_folder.ITEMS_FILE: "metrics of each answer",
}
OF_COMPARING = {run_folder.COMPARISON_FILE: "before against after, row by row"}
OF_JUDGING = {
    run_folder.JUDGE_FILE: "each verdict of a judge",
    run_folder.JUDGE_SUMMARY_FILE: "a judge's scores, controls and cost",
}


@dataclass(frozen=True, kw_only=True)
class Missing:
    file: str
    shows: str
    command: str
    """Words in capitals are for the reader to replace."""


def missing(evidence: Evidence) -> list[Missing]:
    """Each with a command that works, before what needs the files that it makes."""
    folder, run = evidence.folder, evidence.run_folder
    answer = answering(evidence)
    answered = evidence.evaluation is not None and len(evidence.responses) == len(evidence.names)
    where = f"--output_dir {shlex.quote(str(folder))}"
    other = " --compare_with OTHER" if run is None else " --compare_with_base"
    judge = " --judge_backend BACKEND --judge_model JUDGE"
    parts = (
        (run or folder, OF_TRAINING, TRAIN),
        (folder, OF_ANSWERING, answer),
        (folder, OF_SCORING, f"{EVALUATE} score {where}" if answered else answer),
        (folder, OF_COMPARING, answer + other),
        (folder, OF_JUDGING, f"{EVALUATE} judge {where}{judge}" if answered else answer + judge),
    )
    return [
        Missing(file=file, shows=shows, command=command)
        for place, files, command in parts
        for file, shows in files.items()
        if not (place / file).is_file() and not is_elsewhere(evidence, file)
    ]


def is_elsewhere(evidence: Evidence, file: str) -> bool:
    """Answers of another tool keep their own name, and nobody can ask again; the contract may be in a checkpoint."""
    if file == run_folder.RESPONSES_FILE:
        return evidence.evaluation is not None and evidence.ours in evidence.responses
    if file == run_folder.CONTROLS_FILE:
        return evidence.evaluation is not None and evidence.evaluation["engine"] is None
    return file == run_folder.CONTRACT_FILE and evidence.contract is not None


def answering(evidence: Evidence) -> str:
    """The command that has the rows answered: by the run whose rows they are, or by who answered them before."""
    folder, run = evidence.folder, evidence.run_folder
    asked = evidence.evaluation or {}
    if keys := asked.get("keys"):
        words = [word for name, value in keys.items() for word in (f"--{name}", typed(value))]
        return " ".join([EVALUATE, *words, "--output_dir", shlex.quote(str(folder))])
    if run is None and asked.get("engine") is None and asked:
        file = list(asked["systems"].values())[-1]["responses"]
        return f"{EVALUATE} --responses {shlex.quote(str(folder / file))} --output_dir {shlex.quote(str(folder))}"
    model = next(reversed(asked["systems"].values()))["model"] if asked.get("systems") else run or "MODEL"
    words = [EVALUATE, "--model_name_or_path", shlex.quote(str(model)) if model != "MODEL" else model]
    splits = (evidence.run or {}).get("splits", {})
    if asked.get("split") or (run is not None and splits.get("test")):
        split = asked.get("split") or "test"
        words += ["--split", split] if split != "test" else []
    elif asked.get("data"):
        words += ["--data", shlex.quote(asked["data"])]
    elif splits.get("validation"):
        words += ["--split", "validation"]
    else:
        words += ["--data", "ROWS"]
    if Path(model) != folder:
        words += ["--output_dir", shlex.quote(str(folder))]
    return " ".join(words)


def typed(value: Any) -> str:
    """The value of a key as the command line takes it."""
    return shlex.quote(value if isinstance(value, str) else json.dumps(value))
