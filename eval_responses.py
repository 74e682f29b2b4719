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
from heed.config import EvalConfig
from heed.errors import UserError, exit_code
from heed.metrics import exact_match, mean
from heed.responses import response_rows
from heed.subjects import Subject, find_base, find_prompt, find_run, in_4bit, load_subject, set_aside

if TYPE_CHECKING:  # heavy: imported below, once the command line is known to be good
    from heed.answering import Response
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
    prompt, contract = find_prompt(ours.model_name_or_path, ours.model_revision, ours.prompt)
    records, what = read_records(ours, run)
    subjects = [find_base(ours.model_name_or_path, run)] if ours.compare_with_base else []
    name = "tuned" if run else "model"
    subjects.append(Subject(name=name, model=ours.model_name_or_path, revision=ours.model_revision))
    folder = output_folder(ours)
    batch_size, max_new_tokens = ours.batch_size, ours.max_new_tokens
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size: {batch_size} answers nothing; give 1 or more, or leave it out")
    dtype, load_in_4bit = ours.dtype, in_4bit(run, ours.load_in_4bit)
    config.refuse_unread(ours, settings)  # whatever was to be read has been read

    print(f"Heed {__version__}: {len(records)} {what} rows, prompt {prompt.name}")
    responses: dict[str, list[Response]] = {}
    for subject in subjects:
        model = load_subject(subject, dtype=dtype, load_in_4bit=load_in_4bit)
        name = subject.name
        responses[name] = answer(
            model,
            f"{name} {subject.model}",
            prompt,
            contract,
            records,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
        )
        del model  # the next one may need its memory
        run_folder.write_json(folder / responses_file(name), response_rows(records, responses[name]))
    scores = score(records, responses, {each.name: each.model for each in subjects})
    run_folder.write_json(folder / run_folder.SCORES_FILE, scores)
    print(scores_text(scores, what))
    print(examples_text(records, responses))
    print(files_text(folder, list(responses), run))


def responses_file(name: str) -> str:
    return run_folder.BASE_RESPONSES_FILE if name == "base" else run_folder.RESPONSES_FILE


def read_records(ours: EvalConfig, run: Path | None) -> "tuple[list[Record], str]":
    """The rows to answer, and what they are called."""
    from heed.sources import Source, read

    if ours.data is not None:
        source = Source(data=ours.data, columns=ours.columns, on_bad_row=ours.on_bad_row)
        return read(source).rows.records[: ours.limit], ours.data
    if run is None:
        raise UserError(
            f"data is missing: {ours.model_name_or_path} is no run folder that would know its own test rows"
        )
    return set_aside(run, ours.split)[: ours.limit], ours.split


def output_folder(ours: EvalConfig) -> Path:
    folder = Path(ours.output_dir or ours.model_name_or_path)
    if ours.output_dir is None and not folder.is_dir():
        raise UserError(f"output_dir is missing: {ours.model_name_or_path} is not a folder that could take the answers")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


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
            on_response=lambda index, response: bar.update(),
            say=lambda text: bar.write(f"{name}: {text}"),
        )


def score(
    records: "Sequence[Record]", responses: "dict[str, list[Response]]", paths: dict[str, str]
) -> dict[str, dict[str, Any]]:
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
