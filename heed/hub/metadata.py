"""The card's metadata, as the Hub reads it: only what is a fact, and what someone elsewhere can follow."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from heed.config.notation import parse
from heed.data.sources import locations
from heed.files import run_folder
from heed.report.evidence import Evidence
from heed.report.results import OWN_SYSTEMS, benchmark_rows, how_asked
from heed.saying import count

CARD_FILE = "README.md"
DATA_FILES = (".json", ".jsonl", ".csv", ".parquet", ".gz", ".zst")


def metadata(evidence: Evidence, name: str) -> ModelCardData:
    """A folder of this machine is not a base_model or dataset that anyone could follow."""
    run = run_of(evidence)
    results = [*eval_results(evidence), *benchmark_results(evidence)]
    return ModelCardData(
        license=licence(evidence),
        library_name="peft" if run_folder.is_adapter(evidence.weights) else "transformers",
        pipeline_tag="text-generation",
        tags=[
            "instruction-tuning",
            *(["dpo", "trl"] if on_pairs(evidence) else ["sft"]),
            "heed",
            *(["lora"] if run_folder.is_adapter(evidence.weights) else []),
        ],
        base_model=run["model"] if is_hub_id(run["model"]) else None,
        datasets=[source for source in sources(evidence) if is_hub_id(source)] or None,
        model_name=name if results else None,
        eval_results=results or None,
    )


def run_of(evidence: Evidence) -> dict[str, Any]:
    assert evidence.run is not None  # a card is of a run
    return evidence.run


def on_pairs(evidence: Evidence) -> bool:
    """Whether the run learned from preferences."""
    return value_of(evidence.config, "pairs") is not None


def eval_results(evidence: Evidence) -> list[EvalResult]:
    evaluation = evidence.evaluation
    if not evaluation:
        return []
    data = evaluation["data"]
    name = data if is_hub_id(data) else Path(data).name
    return [
        EvalResult(
            task_type="text-generation",
            task_name="Following instructions",
            dataset_type=name,
            dataset_name=row.task.replace(data, name),
            dataset_split=evaluation["split"],
            metric_type=row.metric,
            metric_name=f"{row.metric} ({count(row.n, 'row')})",
            metric_value=round(row.value, 4),
        )
        for row in evidence.rows
        if row.name == evidence.ours
        and row.system in OWN_SYSTEMS
        and row.value is not None
        and row.details.get("better") != "neither"
    ]


def benchmark_results(evidence: Evidence) -> list[EvalResult]:
    """What a benchmark measured as a whole; a part of its items is not a result to compare others with."""
    return [
        EvalResult(
            task_type="text-generation",
            task_name=row.system,
            dataset_type=row.task,
            dataset_name=", ".join([row.task, *how_asked(row)]),
            metric_type=row.metric,
            metric_name=row.metric,
            metric_value=round(row.value, 4),
        )
        for row in benchmark_rows(evidence)
        if row.name != "base" and row.n == row.n_full and row.value is not None
    ]


def is_hub_id(name: str) -> bool:
    """Whether a name is a repository's: not a file, not a folder here, not a URL."""
    if Path(name).exists() or name.count("/") != 1 or name.endswith(DATA_FILES):
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def sources(evidence: Evidence) -> list[str]:
    return locations(run_of(evidence)["data"]["source"])


def licence(evidence: Evidence) -> str | None:
    """As the run's config says, or that of the base model where its card is at hand; nothing is fetched for it."""
    told: str | None = value_of(evidence.config, "hub_license")
    if told is not None:
        return told
    base = run_of(evidence)["model"]
    found = Path(base) / CARD_FILE
    if not Path(base).is_dir():
        cached = try_to_load_from_cache(base, CARD_FILE, revision=run_of(evidence)["model_revision"])
        if not isinstance(cached, str):
            return None
        found = Path(cached)
    if not found.is_file():
        return None
    return stated_licence(found.read_bytes())


def stated_licence(card: bytes) -> str | None:
    """A card of strangers may be anything at all."""
    head = re.match(rb"\s*---\r?\n(.*?)\n---", card, re.DOTALL)
    try:
        stated = parse(head[1].decode()).get("license") if head else None
    except (ValueError, AttributeError):
        return None
    return stated if isinstance(stated, str) else None


def value_of(config: Mapping[str, Mapping[str, Any]], name: str) -> Any:
    return config.get(name, {}).get("value")
