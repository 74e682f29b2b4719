"""What each benchmark needs here, and the one command that gets what is missing. Imports nothing of what it finds."""

import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heed.benchmarks.suite import BENCHMARKS, Benchmark
from heed.errors import UserError
from heed.shipped import setup

# OpenAI Evals and HELM are kept apart from what training imports (see the Makefile).
EVALS = Path(sys.prefix) / "evals"
HELM = Path(sys.prefix) / "helm"
API_KEY = "OPENAI_API_KEY"
PUNKT = Path("tokenizers") / "punkt_tab"


def installed_version(pattern: str, folder: Path) -> str:
    """The version of a library outside of what is imported here, by the name of its metadata."""
    return next(folder.glob(pattern)).name.removesuffix(".dist-info").partition("-")[2]


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What was said on the command line about data and judge."""

    data_root: Path | None
    judge_model: str | None
    judge_base_url: str | None


def missing(benchmark: Benchmark, surroundings: Surroundings) -> str | None:
    """What is missing, as a sentence that ends in a command; None when the benchmark can run."""
    return missing_package(benchmark) or missing_judge(benchmark, surroundings) or missing_data(benchmark, surroundings)


def missing_package(benchmark: Benchmark) -> str | None:
    match benchmark.runner:
        case "openai_evals":
            return None if (EVALS / "evals").is_dir() else "needs OpenAI Evals: make evals-setup"
        case "helm":
            return None if (HELM / "bin" / "helm-run").is_file() else "needs HELM: make helm-setup"
    if importlib.util.find_spec(benchmark.runner) is None:
        return f"needs the package {benchmark.runner}: {setup('benchmarks')}"
    return None


def missing_judge(benchmark: Benchmark, surroundings: Surroundings) -> str | None:
    """AlpacaEval cannot do without a judge; OpenAI Evals grades by match alone when there is none."""
    if benchmark.runner != "alpaca_eval":
        return None
    if surroundings.judge_model is None:
        return "needs a judge: --judge_model NAME --judge_base_url URL"
    if surroundings.judge_base_url is None and API_KEY not in os.environ:
        return f"needs a key for OpenAI: export {API_KEY}=..., or --judge_base_url URL of another server"
    return None


def missing_data(benchmark: Benchmark, surroundings: Surroundings) -> str | None:
    """With a connection the Hub has them; without, they must be in data_root or in the Hub's cache here."""
    if surroundings.data_root is not None:
        absent = [name for name in benchmark.data if not (surroundings.data_root / name).is_dir()]
        return (
            f"needs data: {', '.join(absent)} in {surroundings.data_root}: `hf download` it there" if absent else None
        )
    if os.environ.get("HF_HUB_OFFLINE", "0") in ("", "0") or all(map(cached, benchmark.data)):
        return None
    return f"needs data: {', '.join(benchmark.data)}: unset HF_HUB_OFFLINE once, or give --data_root FOLDER"


def cached(name: str) -> bool:
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = [f"datasets--{name.replace('/', '--')}", f"spaces--evaluate-metric--{name}"]
    return any((Path(HF_HUB_CACHE) / folder / "snapshots").is_dir() for folder in folders)


def refuse_missing(benchmarks: Sequence[Benchmark], surroundings: Surroundings) -> None:
    """Before anything is loaded. Raises UserError naming the first benchmark that cannot run, and why."""
    for benchmark in benchmarks:
        if reason := missing(benchmark, surroundings):
            raise UserError(f"{benchmark.name} {reason}")


def fetched_later(benchmark: Benchmark) -> str:
    """What a first run with a connection fetches by itself, and what must be brought to a machine without one."""
    if benchmark.name != "ifeval" or any((place / PUNKT).is_dir() for place in nltk_places()):
        return ""
    return "; its first run fetches nltk's punkt_tab (python -m nltk.downloader punkt_tab)"


def nltk_places() -> list[Path]:
    """Where nltk looks for what it has downloaded."""
    named = [Path(place) for place in os.environ.get("NLTK_DATA", "").split(os.pathsep) if place]
    roots = [Path.home(), *(Path(sys.prefix) / part for part in ("", "share", "lib"))]
    system = [Path("/usr") / part for part in ("share", "local/share", "lib", "local/lib")]
    return [*named, *(root / "nltk_data" for root in (*roots, *system))]


def listing(surroundings: Surroundings) -> str:
    """Every benchmark with what it measures, and whether it can run here."""
    lines = []
    for benchmark in BENCHMARKS.values():
        state = missing(benchmark, surroundings) or ("ready" + fetched_later(benchmark))
        lines.append(f"{benchmark.name:<14} {benchmark.measures}")
        lines.append(f"{'':<14} {state}")
    return "\n".join(lines)
