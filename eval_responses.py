"""Answer the held-out rows with a fine-tuned model, and show how it did.

    python eval_responses.py --config configs/eval.yaml
    python eval_responses.py --model_name_or_path runs/tiny --compare_with_base
    python eval_responses.py --model_name_or_path runs/tiny --data my_rows.json --output_dir answers
    python eval_responses.py --model_name_or_path EleutherAI/pythia-70m --prompt question --data rows.json \
        --output_dir base

Writes responses.json, a list of {instruction, input, output, model_response, ...}, and scores.json.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heed import __version__, config, run_folder
from heed.config import EvalConfig, SftConfig
from heed.errors import UserError, exit_code
from heed.responses import response_rows

if TYPE_CHECKING:  # heavy: imported below, once the command line is known to be good
    from heed.generation import Response
    from heed.prompts import Contract, Prompt
    from heed.records import Record

EXAMPLES_SHOWN = 3


def main(arguments: Sequence[str]) -> None:
    if "--help" in arguments or "-h" in arguments:
        print(config.help_text(EvalConfig, __doc__ or ""))
        return
    command_line = config.parse_command_line(arguments, flags=("explain",))
    settings = config.read_settings(command_line, config.field_types(EvalConfig))
    ours = config.script_config(EvalConfig, settings)
    if command_line.explain:
        print(config.explain(config.resolved_values(ours, settings)))
        return

    run = find_run(ours.model_name_or_path)
    prompt, contract = find_prompt(ours)
    records, what = read_records(ours, run)
    models = {"base": base_model(ours, run)} if ours.compare_with_base else {}
    models["tuned" if run else "model"] = (ours.model_name_or_path, ours.model_revision)
    folder = output_folder(ours)
    batch_size, max_new_tokens = ours.batch_size, ours.max_new_tokens
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size: {batch_size} answers nothing; give 1 or more, or leave it out")
    dtype, load_in_4bit = ours.dtype, in_4bit(ours, run)
    config.refuse_unread(ours, settings)  # whatever was to be read has been read

    print(f"Heed {__version__}: {len(records)} {what} rows, prompt {prompt.name}")
    responses: dict[str, list[Response]] = {}
    for name, (path, revision) in models.items():
        model = load_model(path, revision, dtype=dtype, load_in_4bit=load_in_4bit)
        responses[name] = answer(
            model, f"{name} {path}", prompt, contract, records, batch_size=batch_size, max_new_tokens=max_new_tokens
        )
        del model  # the next one may need its memory
        run_folder.write_json(folder / responses_file(name), response_rows(records, responses[name]))
    scores = score(records, responses, {name: path for name, (path, _) in models.items()})
    run_folder.write_json(folder / run_folder.SCORES_FILE, scores)
    print(scores_text(scores, what))
    print(examples_text(records, responses))
    print(files_text(folder, list(models), run))


def responses_file(name: str) -> str:
    return run_folder.BASE_RESPONSES_FILE if name == "base" else run_folder.RESPONSES_FILE


def find_run(model: str) -> Path | None:
    """The run folder a model lies in: the folder itself, or the one around a checkpoint.

    Raises UserError for a run that was stopped before it saved its model.
    """
    folder = Path(model)
    run = next((each for each in (folder, folder.parent) if (each / run_folder.RUN_FILE).is_file()), None)
    if run == folder and (status := run_folder.read_json(run / run_folder.RUN_FILE)["status"]) != "done":
        checkpoints = ", ".join(sorted(map(str, run.glob("checkpoint-*")))) or "none"
        raise UserError(f"{run} did not finish (status: {status}); give one of its checkpoints ({checkpoints})")
    return run


def find_prompt(ours: EvalConfig) -> "tuple[Prompt, Contract]":
    """The prompt contract a model brings; only a model without one is asked how it wants to be prompted.

    Raises UserError when a prompt is given to a model that has its own, or none to one that has not.
    """
    from heed.modeling import load_tokenizer
    from heed.prompts import fetch_contract, load_prompt, prompt_from_contract

    tokenizer = load_tokenizer(ours.model_name_or_path, ours.model_revision)
    contract = fetch_contract(ours.model_name_or_path, ours.model_revision)
    if contract is not None:
        if ours.prompt is not None:
            raise UserError(
                f"prompt: {ours.prompt}, but {ours.model_name_or_path} was trained with {contract.prompt} and brings "
                "that contract; leave prompt out"
            )
        return prompt_from_contract(contract, tokenizer), contract
    if ours.prompt is None:
        raise UserError(
            f"{ours.model_name_or_path} brings no prompt contract (it was not trained by Heed, or not to the end); "
            "say how it wants to be prompted with prompt: NAME (a file in prompts/, or model for its own chat template)"
        )
    prompt = load_prompt(ours.prompt, tokenizer)
    return prompt, prompt.contract()


def read_records(ours: EvalConfig, run: Path | None) -> "tuple[list[Record], str]":
    """The rows to answer, and what they are called.

    Raises UserError when the run's data are no longer what it was trained and tested on.
    """
    from heed.plan import read_rows
    from heed.sources import Source, read

    if ours.data is not None:
        source = Source(data=ours.data, columns=ours.columns, on_bad_row=ours.on_bad_row)
        return read(source).rows.records[: ours.limit], ours.data
    if run is None:
        raise UserError(
            f"data is missing: {ours.model_name_or_path} is no run folder that would know its own test rows"
        )
    resolved = run_folder.read_json(run / run_folder.CONFIG_FILE)
    names = config.field_types(SftConfig)
    sft = SftConfig(**{name: each["value"] for name, each in resolved.items() if name in names})
    reading, splits = read_rows(sft, lambda text: None)
    trained_on = run_folder.read_json(run / run_folder.RUN_FILE)["data"]["rows_sha256"]
    if reading.rows.sha256 != trained_on:
        raise UserError(
            f"data: {sft.data} has changed since {run} was trained (sha256 {reading.rows.sha256[:12]}, then "
            f"{trained_on[:12]}), so its held-out rows are unknown; give the rows to answer with data: FILE"
        )
    if not splits[ours.split]:
        raise UserError(f"split: the {ours.split} split of {run} is empty")
    return splits[ours.split][: ours.limit], ours.split


def base_model(ours: EvalConfig, run: Path | None) -> tuple[str, str | None]:
    if run is None:
        raise UserError(f"compare_with_base: {ours.model_name_or_path} is no run folder that would name its base model")
    record = run_folder.read_json(run / run_folder.RUN_FILE)
    return record["model"], record["model_revision"]


def output_folder(ours: EvalConfig) -> Path:
    folder = Path(ours.output_dir or ours.model_name_or_path)
    if ours.output_dir is None and not folder.is_dir():
        raise UserError(f"output_dir is missing: {ours.model_name_or_path} is not a folder that could take the answers")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def in_4bit(ours: EvalConfig, run: Path | None) -> bool:
    """An adapter is right only with the base model it was trained on, 4-bit rounding included."""
    if ours.load_in_4bit is not None or run is None:
        return bool(ours.load_in_4bit)
    resolved = run_folder.read_json(run / run_folder.CONFIG_FILE)
    return bool(resolved["use_peft"]["value"] and resolved["load_in_4bit"]["value"])


def load_model(path: str, revision: str | None, *, dtype: str, load_in_4bit: bool) -> Any:
    import torch

    from heed import modeling

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    return modeling.load_finished(path, revision=revision, dtype=dtype, load_in_4bit=load_in_4bit, device=device).eval()


def answer(
    model: Any,
    name: str,
    prompt: "Prompt",
    contract: "Contract",
    records: "Sequence[Record]",
    *,
    batch_size: int | None,
    max_new_tokens: int,
) -> "list[Response]":
    from tqdm.auto import tqdm

    from heed.generation import generate

    with tqdm(total=len(records), desc=name, unit="row") as bar:
        return generate(
            model,
            prompt,
            [prompt.encode_prompt(record.messages[:-1]) for record in records],
            stop_token_ids=contract.stop_token_ids,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            on_done=bar.update,
            say=lambda text: bar.write(f"{name}: {text}"),
        )


def score(
    records: "Sequence[Record]", responses: "dict[str, list[Response]]", paths: dict[str, str]
) -> dict[str, dict[str, Any]]:
    from heed.metrics import exact_match, mean

    return {
        name: {
            "model": paths[name],
            "rows": len(records),
            "exact_match": mean(
                [exact_match(each.text, record.output) for each, record in zip(given, records, strict=True)]
            ),
            "cut_by_length": sum(each.finish_reason == "length" for each in given),
            "seconds": round(sum(each.seconds for each in given), 3),
        }
        for name, given in responses.items()
    }


def scores_text(scores: dict[str, dict[str, Any]], what: str) -> str:
    lines = [f"\nexact match on {next(iter(scores.values()))['rows']} {what} rows"]
    for name, each in scores.items():
        cut = f"{each['cut_by_length']} cut by max_new_tokens"
        lines.append(f"  {name:<6} {each['exact_match']:.3f}   {each['model']} ({cut}, {each['seconds']:.1f} s)")
    return "\n".join(lines)


def examples_text(records: "Sequence[Record]", responses: "dict[str, list[Response]]") -> str:
    """A few rows side by side, evenly spaced, so that nobody has picked the good ones."""
    from heed.preview import one_line

    lines = []
    count = min(EXAMPLES_SHOWN, len(records))
    for index in (number * len(records) // count for number in range(count)):
        record = records[index]
        lines.append(f"\nrow {record.row_id}    {one_line(record.instruction)}")
        if record.input:
            lines.append(f"  input    {one_line(record.input)}")
        lines.append(f"  expected {one_line(record.output)}")
        lines += [f"  {name:<8} {one_line(given[index].text)}" for name, given in responses.items()]
    return "\n".join(lines)


def files_text(folder: Path, names: Sequence[str], run: Path | None) -> str:
    lines = ["", *(f"answers   {folder / responses_file(name)}" for name in names)]
    lines.append(f"scores    {folder / run_folder.SCORES_FILE}")
    if run is not None:
        lines += [f"loss plot {run / run_folder.LOSS_PLOT}", f"model     {run}"]
    return "\n".join(lines)


if __name__ == "__main__":
    # OpenMP threads that wait should sleep: spinning ones make a machine with other work many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
