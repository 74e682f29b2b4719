"""HELM: run in its own environment, on the run's test rows and on any of its run entries."""

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from heed.benchmarks.asking import Asking, Outcome, Score
from heed.benchmarks.loaded import Loaded
from heed.benchmarks.question import Question, graded_key
from heed.benchmarks.readiness import HELM, installed_version
from heed.benchmarks.suite import Benchmark
from heed.data.records import Record
from heed.errors import UserError
from heed.files import run_folder
from heed.prompts.template import Prompt

REPOSITORY = Path(__file__).parent.parent.parent
PLUGIN = "heed.benchmarks.helm_plugin"
OWN_ENTRY = "heed_test"
SUITE = "heed"
PATIENCE = 24 * 3600
MOST_INSTANCES = 1000
"""Of a scenario, where no limit is set: HELM's own default."""
SPLIT = "test"
# What HELM reports on the quality of answers.
METRICS = ("exact_match", "quasi_exact_match", "prefix_exact_match", "quasi_prefix_exact_match", "f1_score")


def question(
    asking: Asking, benchmark: Benchmark, entry: str, records: Sequence[Record], *, max_new_tokens: int
) -> Question:
    """One of HELM's run entries; `records` are the run's test rows, which its own entry asks."""
    asked = records[: asking.limit] if entry == OWN_ENTRY else []
    rows = rendered_rows(asked, asking.prompt)
    library = f"crfm-helm {installed_version('lib/python*/site-packages/crfm_helm-*.dist-info', HELM)}"

    def ask(loaded: Loaded, key: dict[str, Any], folder: Path) -> Outcome:
        began = time.perf_counter()
        name, work = loaded.subject.name, folder.parent  # HELM's own files, which all entries share
        work.mkdir(parents=True, exist_ok=True)
        path, positions = loaded.place()
        models = {name: told_model(path, asking.prompt, work, positions=positions)}
        told = write_told(work, rows, models, max_new_tokens=max_new_tokens)
        description = entry_for(entry, name)
        helm_run([description], told, work, limit=asking.limit or MOST_INSTANCES)
        n_full = len(records) if entry == OWN_ENTRY else None
        seconds = time.perf_counter() - began
        return read_outcome(work, description, key, task=entry, n_full=n_full, seconds=seconds)

    return Question(
        benchmark=benchmark,
        variant=f"{benchmark.name}/{re.sub(r'[^0-9A-Za-z_]+', '-', entry)}",
        key=graded_key(asking, asked, max_new_tokens=max_new_tokens, data=entry, library=library),
        library=library,
        ask=ask,
    )


def rendered_rows(records: Sequence[Record], prompt: Prompt) -> list[dict[str, Any]]:
    """Prompts as text that HELM's tokenizer turns into the very ids of the contract.

    Raises UserError for a row where it would not: a BOS written twice, or a control token that the row quotes.
    """
    rows = []
    for record in records:
        text = prompt.render(record.messages[:-1], generation_prompt=True)
        wanted = prompt.encode_prompt(record.messages[:-1])
        candidates = [text, text.removeprefix(prompt.tokenizer.bos_token or "")]
        fitting = [each for each in candidates if prompt.tokenizer(each)["input_ids"] == wanted]
        if not fitting:
            raise UserError(
                f"HELM: {record.place} quotes a control token or begins in a way that HELM's tokenizer reads "
                "differently from training; leave the row out"
            )
        rows.append({"prompt": fitting[0], "reference": record.output, "row_id": record.row_id})
    return rows


def write_told(
    folder: Path, rows: Sequence[dict[str, Any]], models: Mapping[str, dict[str, Any]], *, max_new_tokens: int
) -> Path:
    """The file that the plug-in reads."""
    path = folder.resolve() / "told.json"
    run_folder.write_json(path, {"rows": rows, "models": models, "max_new_tokens": max_new_tokens})
    return path


def told_model(path: str, prompt: Prompt, folder: Path, *, positions: int) -> dict[str, Any]:
    """What the plug-in reads about a model; a base model is asked in the tuned one's template, saved into `folder`."""
    tokenizer, place = prompt.tokenizer, folder.resolve() / "tokenizer"
    tokenizer.save_pretrained(place)
    (place / "chat_template.jinja").write_text(prompt.template, encoding="utf-8")
    return {
        "path": path,
        "tokenizer": str(place),
        "positions": positions,
        "template_tokens": len(prompt.encode_prompt([{"role": "user", "content": "x"}])),
        "eos_token": str(tokenizer.eos_token),
        "bos_token": str(tokenizer.bos_token or ""),
    }


def entry_for(entry: str, name: str) -> str:
    """HELM's description of a run, with our model: HELM's own entries get the chat template."""
    model = f"model=heed/{name}" if entry == OWN_ENTRY else f"model=heed/{name}-chat"
    return f"{entry}{',' if ':' in entry else ':'}{model}"


def helm_run(entries: Sequence[str], told: Path, folder: Path, *, limit: int) -> None:
    """Run the entries. Raises UserError with HELM's last words when it fails."""
    words = [str(HELM / "bin" / "helm-run"), "--run-entries", *entries, "--suite", SUITE]
    words += ["--output-path", str(folder.resolve()), "--local-path", str(folder.resolve() / "prod_env")]
    words += ["--plugins", PLUGIN, "--max-eval-instances", str(limit), "--num-threads", "1"]
    words += ["--disable-cache", "--exit-on-error"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HEED_HELM": str(told)}
    try:
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"HELM did not end within {PATIENCE // 3600} hours; set a limit") from error
    (folder / "helm.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        raise UserError(f"HELM failed, nothing is scored (see {folder / 'helm.log'}): {done.stderr.strip()[-300:]}")


def read_outcome(
    folder: Path, entry: str, key: dict[str, Any], *, task: str, n_full: int | None, seconds: float
) -> Outcome:
    """HELM's own means over the test split, with the items they come from."""
    run = find_run(folder, entry)
    stats = {each["name"]["name"]: each for each in run_folder.read_json(run / "stats.json") if of_test(each["name"])}
    items = read_items(run)
    scores = [
        Score(
            task=task,
            metric=metric,
            value=float(stats[metric]["mean"]),
            values={task: items[metric]},
            n=len(items[metric]),
            n_full=n_full or len(items[metric]),
            fewshot=int(run_folder.read_json(run / "run_spec.json")["adapter_spec"]["max_train_instances"]),
            version=SUITE,
            higher_is_better=True,
            chance=None,
            part_of=None,
        )
        for metric in METRICS
        if metric in stats and metric in items
    ]
    if not scores:
        raise UserError(f"HELM: {entry} reports none of {', '.join(METRICS)}; what it reports is in {run}/stats.json")
    return Outcome(key=key, scores=scores, notes=[], seconds=seconds)


def of_test(name: Mapping[str, Any]) -> bool:
    """HELM reports each metric also for perturbed inputs and other splits."""
    return name.get("split") == SPLIT and "perturbation" not in name


def read_items(run: Path) -> dict[str, list[float]]:
    """For every metric its value on each instance, in an order that is the same for every model."""
    items: dict[str, list[float]] = {}
    instances = run_folder.read_json(run / "per_instance_stats.json")
    for instance in sorted(instances, key=lambda each: str(each["instance_id"])):
        for stat in instance["stats"]:
            if of_test(stat["name"]) and stat["count"]:
                items.setdefault(stat["name"]["name"], []).append(float(stat["mean"]))
    return items


def find_run(folder: Path, entry: str) -> Path:
    """The folder of a run; HELM puts all arguments of the run into its name."""
    model = entry.partition("model=")[2].replace("/", "_")
    scenario = entry.partition(":")[0]
    runs = sorted((folder / "runs" / SUITE).glob(f"{scenario}[:,]*model={model}*"))
    runs = [run for run in runs if (run / "stats.json").is_file()]
    if len(runs) != 1:
        raise UserError(f"HELM: {len(runs)} runs in {folder} look like {entry}; delete {folder} and run again")
    return runs[0]
