"""The model card: what a run and its evaluation measured, in words, tables and the Hub's own metadata."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import EvalResult, ModelCardData, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from heed.errors import UserError
from heed.files import run_folder
from heed.files.lines import kept_values
from heed.hub.outgoing import redact, secrets_of
from heed.report.facts import duration, versions_text

CARD_FILE = "README.md"
TEMPLATE = Path(__file__).parent / "card.jinja"
SAMPLES = 5
LONGEST_ANSWER = 256  # tokens, in the snippet
LONGEST_TEXT = 600  # characters of a sample; the files of the run have it all
SHOWN_SYSTEMS = ("metrics", "stop", "judge")
DATA_FILES = (".json", ".jsonl", ".csv", ".parquet", ".gz", ".zst")
# What the card tells elsewhere, or what is nobody's concern: folders, devices, and how a run is shown and saved.
NOT_RECIPE = re.compile(
    r"(model_name_or_path|model_revision|prompt|data|output_dir|report_to|run_name|use_cpu|disable_tqdm|overwrite_.*"
    r"|push_to_hub|hub_.*|logging_.*|save_.*|eval_.*|dataloader_.*|resume|allow_changed|preflight|num_proc|sample_.*"
    r"|project|trackio_.*|ddp_.*|load_best_model_at_end|metric_for_best_model|greater_is_better)"
)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The files a card is made from; empty where there is none yet."""

    run: dict[str, Any]
    config: dict[str, dict[str, Any]]
    contract: dict[str, Any]
    context: int
    """Tokens that the model has positions for, as far as is known."""
    adapter: dict[str, Any]
    evaluation: dict[str, Any]
    comparison: dict[str, Any]
    rows: list[dict[str, Any]]
    answers: dict[str, list[dict[str, Any]]]
    """Of each system, the one compared with first."""
    samples: list[dict[str, Any]]
    plot: str


def read_evidence(run: Path) -> Evidence:
    """Raises UserError for a folder that is no run, and for files that are damaged."""
    if not (run / run_folder.RUN_FILE).is_file():
        raise UserError(f"{run} is no run folder ({run_folder.RUN_FILE} is missing)")
    newest = max(
        [run, *run.glob("checkpoint-*")], key=lambda path: (path == run and has_model(run), path.stat().st_mtime)
    )
    evaluation = read_if_there(run / run_folder.EVALUATION_FILE)
    return Evidence(
        run=run_folder.read_json(run / run_folder.RUN_FILE),
        config=read_if_there(run / run_folder.CONFIG_FILE),
        contract=read_if_there(newest / run_folder.CONTRACT_FILE),
        context=context_length(*(read_if_there(newest / f"{name}.json") for name in ("config", "tokenizer_config"))),
        adapter=read_if_there(newest / "adapter_config.json"),
        evaluation=evaluation,
        comparison=read_if_there(run / run_folder.COMPARISON_FILE) if evaluation else {},
        rows=read_lines_if_there(run / run_folder.ROWS_FILE),
        answers={
            name: run_folder.read_json(run / system["responses"])
            for name, system in evaluation.get("systems", {}).items()
            if (run / system["responses"]).is_file()
        },
        samples=kept_values(run / run_folder.SAMPLES_FILE),
        plot=run_folder.LOSS_PLOT if (run / run_folder.LOSS_PLOT).is_file() else "",
    )


def has_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))


def context_length(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> int:
    """By the model, or where that is an adapter by the tokenizer, whose 1e30 means that it does not know."""
    known = config.get("max_position_embeddings") or config.get("n_positions") or tokenizer.get("model_max_length")
    return int(min(known or 2 * LONGEST_ANSWER, 2 * LONGEST_ANSWER))


def read_if_there(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = run_folder.read_json(path) if path.is_file() else {}
    return found


def read_lines_if_there(path: Path) -> list[dict[str, Any]]:
    return run_folder.read_lines(path) if path.is_file() else []


def model_card(run: Path, repo_id: str | None, revision: str | None = None) -> str:
    """README.md of a run's model, metadata first. What looks like a token is taken out of it.

    Where the model goes (`repo_id`, `revision`) is what the run was told, unless it is said here.
    """
    evidence = read_evidence(run)
    repo_id = repo_id or value_of(evidence.config, "hub_model_id")
    revision = revision or value_of(evidence.config, "hub_revision") or "main"
    name = (repo_id or run.resolve().name).rpartition("/")[2]
    address = json.dumps(repo_id or str(run)) + ("" if revision == "main" else f", revision={json.dumps(revision)}")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False)
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(values(evidence, name, address))
    text = re.sub(r"\n{3,}", "\n\n", text)
    return redact(f"---\n{metadata(evidence, name).to_yaml()}\n---\n\n{text}", secrets_of())


def write_card(run: Path, repo_id: str | None, revision: str | None = None) -> str:
    text = model_card(run, repo_id, revision)
    (run / CARD_FILE).write_text(text, encoding="utf-8")
    return text


# ---- metadata


def metadata(evidence: Evidence, name: str) -> ModelCardData:
    """Only what is a fact: a folder of this machine is no base_model or dataset that anyone could follow."""
    base, data = evidence.run["model"], sources(evidence)
    results = [*eval_results(evidence), *benchmark_results(evidence)]
    return ModelCardData(
        license=licence(evidence),
        library_name="peft" if evidence.adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["instruction-tuning", "sft", "heed", *(["lora"] if evidence.adapter else [])],
        base_model=base if is_hub_id(base) else None,
        datasets=[source for source in data if is_hub_id(source)] or None,
        model_name=name if results else None,
        eval_results=results or None,
    )


def eval_results(evidence: Evidence) -> list[EvalResult]:
    evaluation = evidence.evaluation
    if not evaluation:
        return []
    data = evaluation["data"]
    return [
        EvalResult(
            task_type="text-generation",
            task_name="Following instructions",
            dataset_type=data if is_hub_id(data) else Path(data).name,
            dataset_name=row["task"],
            dataset_split=evaluation["split"],
            metric_type=row["metric"],
            metric_name=f"{row['metric']} ({row['n']} rows)",
            metric_value=round(row["value"], 4),
        )
        for row in evidence.rows
        if row["name"] == list(evaluation["systems"])[-1]
        and row["system"] in SHOWN_SYSTEMS
        and row["value"] is not None
        and row["details"].get("better") != "neither"
    ]


def benchmark_results(evidence: Evidence) -> list[EvalResult]:
    """What a benchmark measured as a whole; a part of its items is no result that others could be compared with."""
    return [
        EvalResult(
            task_type="text-generation",
            task_name=row["system"],
            dataset_type=row["task"],
            dataset_name=f"{row['task']}, {asked_how(row)}",
            metric_type=row["metric"],
            metric_name=row["metric"],
            metric_value=round(row["value"], 4),
        )
        for row in benchmark_rows(evidence)
        if row["name"] != "base" and row["n"] == row["n_full"] and row["value"] is not None
    ]


def benchmark_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """The headline numbers, without the parts of groups."""
    return [
        row
        for row in evidence.rows
        if row["system"] not in SHOWN_SYSTEMS and row["details"].get("headline") and not row["details"].get("part_of")
    ]


def asked_how(row: Mapping[str, Any]) -> str:
    shots = [f"{row['fewshot']}-shot"] if row["fewshot"] is not None else []
    limit = [f"limit {row['limit']}"] if row["limit"] is not None else []
    return ", ".join([*shots, "chat template" if row["chat_template"] else "plain text", *limit])


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
    source = evidence.run["data"]["source"]
    return list(source.values()) if isinstance(source, dict) else [source]


def licence(evidence: Evidence) -> str | None:
    """As the run was told, or that of the base model where its card is at hand; nothing is fetched for it."""
    told: str | None = value_of(evidence.config, "hub_license")
    if told is not None:
        return told
    base = evidence.run["model"]
    found = Path(base) / CARD_FILE
    if not Path(base).is_dir():
        cached = try_to_load_from_cache(base, CARD_FILE, revision=evidence.run["model_revision"])
        if not isinstance(cached, str):
            return None
        found = Path(cached)
    if not found.is_file():
        return None
    head = re.match(r"\s*---\n(.*?)\n---", found.read_text(encoding="utf-8"), re.DOTALL)
    try:
        stated = yaml.safe_load(head[1]).get("license") if head else None
    except (yaml.YAMLError, AttributeError):
        return None
    return stated if isinstance(stated, str) else None


def value_of(config: Mapping[str, Mapping[str, Any]], name: str) -> Any:
    return config.get(name, {}).get("value")


# ---- words and tables


def values(evidence: Evidence, name: str, address: str) -> dict[str, Any]:
    """What the template shows. `address` are the arguments of from_pretrained."""
    evaluation, base = evidence.evaluation, evidence.run["model"]
    shown, sampled = samples(evidence)
    return {
        "name": name,
        "summary": summary(evidence),
        "adapter": bool(evidence.adapter),
        "base": f"[{base}](https://huggingface.co/{base})" if is_hub_id(base) else f"`{base}`",
        "local_base": bool(evidence.adapter) and not is_hub_id(base),
        "address": address,
        "message": json.dumps(example_message(evidence), ensure_ascii=False),
        "max_new_tokens": evaluation.get("max_new_tokens") or min(LONGEST_ANSWER, evidence.context // 2),
        "prompt": evidence.run["prompt"],
        "eos_token": evidence.contract.get("eos_token", ""),
        "golden": fenced(evidence.contract.get("golden_text", "")),
        "what": what(evaluation),
        "n": evaluation.get("n"),
        "systems": list(evaluation.get("systems", {})),
        "compared": bool(evidence.comparison),
        "results": results(evidence),
        "benchmarks": benchmarks(evidence),
        "notes": evidence.comparison.get("notes", []),
        "samples": shown,
        "sampled": sampled,
        "plot": evidence.plot,
        "training": [(fact, cell(value)) for fact, value in training_facts(evidence)],
        "command": fenced(f"python {evidence.run['command']}", "sh"),
        "data": [(fact, cell(value)) for fact, value in data_facts(evidence)],
        "limits": limits(evidence),
    }


def what(evaluation: Mapping[str, Any]) -> str:
    split = evaluation.get("split")
    return f"The {split} rows of `{evaluation['data']}`" if split else f"`{evaluation.get('data')}`"


def summary(evidence: Evidence) -> str:
    run = evidence.run
    rows = f"{run['splits']['train']:,} rows of {' and '.join(f'`{source}`' for source in sources(evidence))}"
    how = "with a LoRA adapter" if evidence.adapter else f"all {run['parameters']:,} parameters"
    text = f"`{run['model']}`, tuned to follow instructions on {rows} ({how}) with Heed {run['heed']}."
    metric = next(iter(evidence.comparison.get("metrics", {})), None)
    if metric is not None:
        found = evidence.comparison["metrics"][metric]
        low, high = found["ci95"]
        text += (
            f" On {found['n']} held-out rows its {metric} is {found['b']:.3g}, that of the model it started from "
            f"{found['a']:.3g}: a difference of {found['difference']:+.3g} (95 % interval {low:+.3g} to {high:+.3g})."
        )
    return text


def results(evidence: Evidence) -> list[list[str]]:
    """A row for each metric: of each system value and interval, then how they differ."""
    if not evidence.evaluation:
        return []
    names = list(evidence.evaluation["systems"])
    found: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
    for row in evidence.rows:
        if row["system"] in SHOWN_SYSTEMS and row["name"] in names:
            found.setdefault((row["system"], row["task"], row["metric"]), {})[row["name"]] = row
    main_task = next((task for _, task, _ in found), "")
    table = []
    first = next((metric for _, _, metric in found), "")
    for (system, task, metric), of in found.items():
        if task != main_task and system != "judge" and metric != first:
            continue  # of a part of the rows the first metric will do; rows.jsonl has all
        label = metric if system != "judge" else f"{metric} (judge)"
        line = [cell(label if task == main_task else f"{label}: {task}"), str(next(iter(of.values()))["n"])]
        line += [number(of[name]["value"], of[name]["ci95"]) if name in of else "" for name in names]
        if evidence.comparison:
            difference = evidence.comparison["metrics"].get(metric) if task == main_task and system != "judge" else None
            line.append(number(difference["difference"], difference["ci95"], signed=True) if difference else "")
            counted = difference is not None and difference["wins"] is not None
            line.append(f"{difference['wins']}, {difference['losses']}" if difference and counted else "")
        table.append(line)
    return table


def benchmarks(evidence: Evidence) -> list[list[str]]:
    """A row for each benchmark: base and tuned model, what was gained, and what guessing scores."""
    found: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for row in benchmark_rows(evidence):
        asked: tuple[str, ...] = (row["system"], row["task"], row["metric"], asked_how(row))
        found.setdefault(asked, {})["base" if row["name"] == "base" else "tuned"] = row
    table = []
    for asked, of in found.items():
        row = next(reversed(of.values()))
        gained = of["tuned"]["details"].get("difference_from_base") if "tuned" in of else None
        items = f"{row['n']:,}" if row["n"] == row["n_full"] else f"{row['n']:,} of {row['n_full']:,}"
        line = [*map(cell, asked), items]
        line += [number(of[name]["value"], of[name]["ci95"]) if name in of else "" for name in ("base", "tuned")]
        line.append(number(gained["value"], gained["ci95"], signed=True) if gained else "")
        line.append("" if row["chance"] is None else f"{row['chance']:.3f}")
        table.append(line)
    return table


def number(value: float | None, interval: Sequence[float] | None, *, signed: bool = False) -> str:
    if value is None:
        return "withheld"
    digits = 1 if max(abs(value), *(abs(end) for end in interval or [0])) >= 10 else 3
    form = f"{{:{'+' if signed else ''}.{digits}f}}"
    return form.format(value) + (f" [{', '.join(form.format(end) for end in interval)}]" if interval else "")


def samples(evidence: Evidence) -> tuple[list[str], str]:
    """Rows with their answers, evenly spaced so that nobody has picked the good ones, and how they were chosen."""
    if evidence.answers:
        asked = list(evidence.answers.values())[-1]
        count = min(SAMPLES, len(asked))
        places = [number * len(asked) // count for number in range(count)]
        by_row = {name: {row["row_id"]: row for row in rows} for name, rows in evidence.answers.items()}
        shown = []
        for row in (asked[place] for place in places):
            given = {
                name: rows[row["row_id"]]["model_response"] for name, rows in by_row.items() if row["row_id"] in rows
            }
            shown.append(fenced(sample_text(row, given)))
        return shown, f"{count} of {len(asked)} rows, evenly spaced, not chosen:"
    if evidence.samples:
        last = evidence.samples[-1]
        return [fenced(sample_text(last, {"answer": last["model_response"]}))], "One validation row, after training:"
    return [], ""


def sample_text(row: Mapping[str, Any], given: Mapping[str, str]) -> str:
    parts = {"instruction": row["instruction"], "input": row.get("input", ""), "expected": row["output"], **given}
    width = max(map(len, parts))
    return "\n".join(
        f"{name:<{width}}  {shortened(text)}".replace("\n", "\n" + " " * (width + 2))
        for name, text in parts.items()
        if text or name not in ("input",)
    )


def shortened(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + " ..."


def example_message(evidence: Evidence) -> dict[str, str]:
    rows = next(reversed(evidence.answers.values()), evidence.samples) if evidence.answers else evidence.samples
    row = next((row for row in rows if not row.get("input")), None)
    return {"role": "user", "content": row["instruction"] if row else "What is the capital of France?"}


def training_facts(evidence: Evidence) -> Iterable[tuple[str, str]]:
    run = evidence.run
    revision = f" at {run['model_revision']}" if run["model_revision"] else ""
    yield "base model", f"`{run['model']}`{revision}"
    yield "parameters", f"{run['parameters']:,}, {run['trained_parameters']:,} of them trained"
    settings = [
        f"`{name}: {json.dumps(each['value'], default=str)}`"
        for name, each in evidence.config.items()
        if each["source"] not in ("default", "Heed's default") and not NOT_RECIPE.fullmatch(name)
    ]
    if settings:
        yield "settings that are not the default", ", ".join(settings)
    if "steps" in run:
        length = f"{run['steps']:,} steps, {run['epochs']:g} epochs, {run['num_input_tokens_seen']:,} tokens"
        yield "length", length
        yield "kept", run["kept"] + (f", eval_loss {run['best_eval_loss']:.4f}" if run["best_eval_loss"] else "")
        yield "check", f"loaded again, its logits differ by {run['reload_max_logit_difference']:.1e} at most"
    yield "hardware", f"{run.get('hardware') or run['device']}, {run['processes']} process(es)"
    if run.get("finished"):
        began, ended = (datetime.fromisoformat(run[name]) for name in ("started", "finished"))
        yield "time", f"{duration((ended - began).total_seconds())}, until {run['finished']}"
    if run.get("earlier"):
        yield "interrupted", f"{len(run['earlier'])} time(s), and gone on with exactly"
    yield "versions", versions_text({"heed": run["heed"]} | run["versions"])


def data_facts(evidence: Evidence) -> Iterable[tuple[str, str]]:
    run, data = evidence.run, evidence.run["data"]
    for source in sources(evidence):
        yield "source", f"[{source}](https://huggingface.co/datasets/{source})" if is_hub_id(source) else f"`{source}`"
    for file, digest in data["files"].items():
        yield "SHA-256", f"`{digest}` ({file})"
    yield "rows", f"{data['rows']:,} ({data['format']}), SHA-256 `{data['rows_sha256']}`"
    yield "splits", ", ".join(f"{name} {count:,}" for name, count in run["splits"].items())
    if data["rejected"]:
        yield "left out", f"{data['rejected']:,} malformed rows"
    for name, split in run["encoded"].items():
        cut = {"prompt cut": split["cut_prompt"], "answer cut": split["cut_response"], "too long": split["too_long"]}
        more = "".join(f", {count:,} {what}" for what, count in cut.items() if count)
        yield f"{name} tokens", f"{split['tokens']:,}, {split['response_tokens']:,} of them in answers{more}"


def limits(evidence: Evidence) -> list[str]:
    run, evaluation = evidence.run, evidence.evaluation
    found = []
    if evaluation and evaluation["split"]:
        found.append(
            f"The {evaluation['n']} rows it is measured on come from the same source as those it was trained on; the "
            "numbers say little about other questions."
        )
    if not evaluation:
        found.append("Nobody has measured its answers; the losses alone do not show that it follows instructions.")
    elif not evidence.comparison:
        found.append("It has not been compared with the model it started from.")
    worse = len({each["row_id"] for each in evidence.comparison.get("worse", [])})
    if worse:
        found.append(f"On {worse} rows it is worse than before by at least one metric.")
    found += [
        f"It has learned one prompt (`{run['prompt']}`); how it answers to another was not measured.",
        "Nothing was done about false, harmful or biased answers; it repeats what its base and its rows hold.",
    ]
    if licence(evidence) is None:
        found.append("No licence is stated; those of the base model and of the data hold.")
    return found


def cell(text: str) -> str:
    """For a table: one line, and no bar that would end the cell."""
    return " ".join(text.split()).replace("|", "\\|")


def fenced(text: str, language: str = "text") -> str:
    """As it is, whatever it holds: a fence longer than any within."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
