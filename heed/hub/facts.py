"""What a card says of training and data: facts in the order a reader asks for them."""

import json
import re
from collections.abc import Iterable

from heed.hub.metadata import is_hub_id, run_of, sources
from heed.report.evidence import Evidence
from heed.report.facts import versions_text
from heed.report.words import epochs_text
from heed.saying import count, duration

# What the card says elsewhere, or what is nobody's concern: folders, devices, and how a run is shown and saved.
NOT_RECIPE = re.compile(
    r"(model_name_or_path|model_revision|prompt|data|output_dir|report_to|run_name|use_cpu|disable_tqdm|overwrite_.*"
    r"|push_to_hub|hub_.*|logging_.*|save_.*|eval_.*|dataloader_.*|resume|allow_changed|preflight|num_proc|sample_.*"
    r"|project|trackio_.*|ddp_.*|load_best_model_at_end|metric_for_best_model|greater_is_better)"
)


def training_facts(evidence: Evidence) -> Iterable[tuple[str, str]]:
    run = run_of(evidence)
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
        tokens = count(run["num_input_tokens_seen"], "token")
        yield "length", f"{count(run['steps'], 'step')}, {epochs_text(run['epochs'])}, {tokens}"
        yield "kept", run["kept"] + (f", eval_loss {run['best_eval_loss']:.4f}" if run["best_eval_loss"] else "")
        yield "check", f"loaded again, its logits differ by {run['reload_max_logit_difference']:.1e} at most"
    yield "hardware", f"{run.get('hardware') or run['device']}, {count(run['processes'], 'process', 'processes')}"
    if "seconds_of_all_starts" in run:  # runs of an earlier Heed do not say
        yield "time", f"{duration(run['seconds_of_all_starts'])}, until {run['finished']}"
    if run.get("earlier"):
        yield "interrupted", f"{count(len(run['earlier']), 'time')}, and continued exactly"
    yield "versions", versions_text({"heed": run["heed"]} | run["versions"])


def data_facts(evidence: Evidence) -> Iterable[tuple[str, str]]:
    run = run_of(evidence)
    data = run["data"]
    for source in sources(evidence):
        yield "source", f"[{source}](https://huggingface.co/datasets/{source})" if is_hub_id(source) else f"`{source}`"
    for file, digest in data["files"].items():
        yield "SHA-256", f"`{digest}` ({file})"
    yield "rows", f"{data['rows']:,} ({data['format']}), SHA-256 `{data['rows_sha256']}`"
    yield "splits", ", ".join(f"{name} {count:,}" for name, count in run["splits"].items())
    if data["rejected"]:
        yield "left out", count(data["rejected"], "malformed row")
    for name, split in run["encoded"].items():
        cut = {"prompt cut": split["cut_prompt"], "answer cut": split["cut_response"], "too long": split["too_long"]}
        more = "".join(f", {count:,} {what}" for what, count in cut.items() if count)
        yield f"{name} tokens", f"{split['tokens']:,}, {split['response_tokens']:,} of them in answers{more}"
