"""Ask a model the benchmarks of the field, through the libraries that own them, beside the model it started from.

    python eval_benchmarks.py list
    python eval_benchmarks.py --config configs/benchmarks.yaml
    python eval_benchmarks.py --model_name_or_path runs/tiny --tasks mmlu,glue --limit 100 --chat_template both
    python eval_benchmarks.py --model_name_or_path runs/tiny --tasks humaneval
    python eval_benchmarks.py execute --model_name_or_path runs/tiny --unsafe_code
    python eval_benchmarks.py --model_name_or_path runs/tiny --tasks openai_evals,alpaca_method \\
        --judge_model llama3 --judge_base_url http://localhost:11434/v1

list     what can run here, and the command that brings what is missing
run      ask the model (what happens when no word is given); writes benchmarks/ and rows.jsonl
execute  run the programs that the model wrote for HumanEval, in a sandbox
"""

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from heed import __version__, config, shipped
from heed.answers.subjects import find_prompt
from heed.benchmarks.readiness import Surroundings, listing, refuse_missing
from heed.benchmarks.suite import HUMANEVAL, find_benchmarks
from heed.commands import run_script
from heed.config import BenchmarkConfig
from heed.errors import UserError
from heed.files import run_folder
from heed.runs.finished import Subject, find_base, find_run, set_aside, weight_bits
from heed.servers.addresses import check_address
from heed.workers import what_is_here_stays

if TYPE_CHECKING:  # heavy: imported below, once the command line is known to be good
    from heed.measure.rows import Row

COMMANDS = ("list", "run", "execute")


def main(arguments: Sequence[str]) -> None:
    words = list(arguments)
    command = words.pop(0) if words and not words[0].startswith("--") else "run"
    if command not in COMMANDS:
        raise UserError(f"{command!r} is not one of {', '.join(COMMANDS)}")
    if command == "list" and not config.asks_for_help(words):
        line = config.parse_command_line(words, flags=())
        print(listing(said_about(config.read_settings(line, config.field_types(BenchmarkConfig)))))
        return
    executes = command == "execute"
    follows = {"tasks": config.Setting(value=[HUMANEVAL], source="follows execute")} if executes else {}
    loaded = config.load(BenchmarkConfig, words, doc=__doc__, word="execute" if executes else None, follows=follows)
    if loaded is None:
        return
    ours = loaded.config
    said = shlex.join(["eval_benchmarks.py", *arguments])
    prepare = {"run": run, "execute": execute}[command]
    measure = prepare(ours, said)
    folder = output_folder(ours)

    from heed.files.lock import locked
    from heed.measure.rows import write_rows
    from heed.report.alarms import below_commonest
    from heed.report.evidence import read_evidence
    from heed.report.results import benchmarks

    what_is_here_stays()
    found = []
    with locked(folder):
        for rows in measure():
            write_rows(folder, rows)  # kept before the next question may fail
            found += rows
    print(rows_text(found))
    print("".join(f"! {title}: {text}\n" for title, text in below_commonest(benchmarks(read_evidence(folder)))), end="")
    print(f"\nrows      {folder / run_folder.ROWS_FILE}")


def said_about(settings: config.Settings) -> Surroundings:
    """What `list` reads of the keys; it needs no model."""
    values = {name: setting.value for name, setting in settings.items()}
    root = values.get("data_root")
    return Surroundings(
        data_root=Path(root).resolve() if root else None,
        judge_model=values.get("judge_model"),
        judge_base_url=values.get("judge_base_url"),
    )


def output_folder(ours: BenchmarkConfig) -> Path:
    folder = Path(ours.output_dir or ours.model_name_or_path)
    if ours.output_dir is None and not folder.is_dir():
        raise UserError(f"output_dir is missing: {ours.model_name_or_path} is not a folder that could take the results")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


Measure = Callable[[], "Iterator[list[Row]]"]
"""Loads the heavy libraries, asks, and gives the rows as they are known."""


def run(ours: BenchmarkConfig, said: str) -> Measure:
    """Ask every model every benchmark. What could stop the run is looked at before a model is loaded."""
    benchmarks = find_benchmarks(ours.tasks)
    names = {each.name for each in benchmarks}
    runners = {each.runner for each in benchmarks}
    judged = bool(runners & {"alpaca_eval", "openai_evals"})
    surroundings = Surroundings(
        data_root=Path(ours.data_root).resolve() if ours.data_root else None,
        judge_model=ours.judge_model if judged else None,
        judge_base_url=ours.judge_base_url if judged else None,
    )
    if surroundings.judge_base_url is not None:
        check_address(surroundings.judge_base_url, key="judge_base_url", token="OPENAI_API_KEY")
    refuse_missing(benchmarks, surroundings)
    refuse_less("batch_size", ours.batch_size, 1, "asks nothing; give 1 or more")
    refuse_less("limit", ours.limit, 1, "leaves nothing to ask; give 1 or more, or leave it out")
    templates, num_fewshot = [True], None
    if "lm_eval" in runners:
        templates = {"with": [True], "without": [False], "both": [True, False]}[ours.chat_template]
        num_fewshot = ours.num_fewshot
        refuse_less("num_fewshot", num_fewshot, 0, "is not a number of examples; give 0 or more, or leave it out")
    programs = HUMANEVAL in names
    unsafe_code = programs and ours.unsafe_code
    without_sandbox = unsafe_code and ours.without_sandbox
    graded = runners != {"lm_eval"}
    max_new_tokens = ours.max_new_tokens if graded else 0
    refuse_less("max_new_tokens", max_new_tokens, int(graded), "leaves no room for an answer; give 1 or more")
    helm_entries = ours.helm_entries if "helm" in names else []
    logprobs = ours.judge_logprobs if surroundings.judge_model is not None else True
    run_of_model = find_run(ours.model_name_or_path)
    asks_rows = sorted(names & {"alpaca_method", "openai_evals"}) + (["helm"] if "heed_test" in helm_entries else [])
    if asks_rows and run_of_model is None:
        raise UserError(
            f"tasks: {', '.join(asks_rows)} asks the test rows of a run, and {ours.model_name_or_path} is not a run "
            "folder"
        )
    subjects = find_subjects(ours, run_of_model)
    prompt, contract = find_prompt(ours.model_name_or_path, ours.model_revision, ours.prompt)
    dtype, batch_size, limit = ours.dtype, ours.batch_size, ours.limit
    bits = weight_bits(run_of_model, ours.load_in_4bit, ours.load_in_8bit)
    folder = output_folder(ours)
    print(f"Heed {__version__}: {', '.join(each.system for each in benchmarks)}; prompt {prompt.name}")

    def measure() -> "Iterator[list[Row]]":
        from heed.benchmarks import execution, measuring
        from heed.benchmarks.alpaca import Judge
        from heed.benchmarks.asking import Asking

        if unsafe_code:
            execution.check_allowed(unsafe_code=True, without_sandbox=without_sandbox)
        asking = Asking(
            folder=folder,
            prompt=prompt,
            contract=contract,
            dtype=dtype,
            bits=bits,
            batch_size=batch_size,
            limit=limit,
            command=said,
            say=print,
        )
        judge = surroundings.judge_model
        options = measuring.Options(
            templates=templates,
            num_fewshot=num_fewshot,
            max_new_tokens=max_new_tokens,
            judge=Judge(model=judge, base_url=surroundings.judge_base_url, logprobs=logprobs) if judge else None,
            helm_entries=helm_entries,
            data_root=surroundings.data_root,
        )
        records = set_aside(run_of_model, "test") if asks_rows and run_of_model is not None else []
        yield from measuring.measure(asking, subjects, benchmarks, options, records)
        if unsafe_code:
            yield execution.run_programs(folder, without_sandbox=without_sandbox, command=said)
        elif programs:
            print(f"\nHumanEval: the programs are written, not run.\n{execution.REFUSAL}:")
            print(f"  {shipped.command('eval_benchmarks')} execute --model_name_or_path {folder} --unsafe_code")

    return measure


def refuse_less(key: str, value: int | None, least: int, why: str) -> None:
    if value is not None and value < least:
        raise UserError(f"{key}: {value} {why}")


def execute(ours: BenchmarkConfig, said: str) -> Measure:
    """Run the programs in the evaluation folder."""
    from heed.benchmarks import execution

    folder = Path(ours.output_dir or ours.model_name_or_path)
    unsafe_code, without_sandbox = ours.unsafe_code, ours.without_sandbox
    if ours.tasks != [HUMANEVAL]:
        raise UserError(f"tasks: {', '.join(ours.tasks)}, but only {HUMANEVAL} has programs to execute")
    execution.check_allowed(unsafe_code=unsafe_code, without_sandbox=without_sandbox)
    return lambda: iter([execution.run_programs(folder, without_sandbox=without_sandbox, command=said)])


def find_subjects(ours: BenchmarkConfig, run_of_model: Path | None) -> list[Subject]:
    """The base model first, as the control."""
    compare = ours.compare_with_base if ours.compare_with_base is not None else run_of_model is not None
    base = [find_base(ours.model_name_or_path, run_of_model)] if compare else []
    name = "tuned" if run_of_model else "model"
    return [*base, Subject(name=name, model=ours.model_name_or_path, revision=ours.model_revision)]


def rows_text(rows: "Sequence[Row]") -> str:
    """A line for each number that is quoted; members of groups, and other metrics, are in rows.jsonl."""
    shown = [row for row in rows if row.details.get("headline") and not row.details.get("part_of")]
    lines: dict[tuple[object, ...], dict[str, Row]] = {}
    for row in shown:
        lines.setdefault((row.task, row.metric, row.fewshot, row.chat_template), {})[row.name] = row
    width = max((len(f"{task} {metric}") for task, metric, *_ in lines), default=0) + 2
    names = list(dict.fromkeys(row.name for row in shown))
    head = "".join(f"{name:>8} {'':<16}" for name in names)
    gained = "difference" if len(names) > 1 else ""
    text = ["", f"{'':<{width}}{'':<9} {head}{gained:<26} {'chance':>6}  {'commonest':>9}  items"]
    for (task, metric, _, template), found in lines.items():
        last = found[names[-1]] if names[-1] in found else next(iter(found.values()))
        cells = "".join(value_text(found.get(name)) for name in names)
        chance = "" if last.chance is None else f"{last.chance:.3f}"
        commonest = "" if last.commonest is None else f"{last.commonest:.3f}"
        items = f"{last.n:,}" if last.n == last.n_full else f"{last.n:,} of {last.n_full:,}"
        how = {True: "template", False: "text", None: ""}[template if isinstance(template, bool) else None]
        gained = gained_text(last) if len(names) > 1 else ""
        text.append(f"{f'{task} {metric}':<{width}}{how:<9} {cells}{gained:<26} {chance:>6}  {commonest:>9}  {items}")
    told = dict.fromkeys(f"{row.task}, {row.name}: {note}" for row in shown for note in row.notes)
    return "\n".join([*text, "", *told])


def value_text(row: "Row | None") -> str:
    from heed.report.words import NOT_MEASURED

    if row is None:
        return f"{'':>25}"
    value = NOT_MEASURED if row.value is None else f"{row.value:.3f}"
    interval = f"[{row.ci95[0]:.3f}, {row.ci95[1]:.3f}]" if row.ci95 else ""
    return f"{value:>8} {interval:<16}"


def gained_text(row: "Row") -> str:
    gained = row.details.get("difference_from_base")
    if not gained:
        return ""
    interval = f" [{gained['ci95'][0]:+.3f}, {gained['ci95'][1]:+.3f}]" if gained["ci95"] else ""
    return f"{gained['value']:+.3f}{interval}"


if __name__ == "__main__":
    run_script(main)
