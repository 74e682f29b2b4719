"""Which rows are asked and who answers them; then evaluation.json says so, also of answers taken from files."""

import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heed import __version__
from heed.answers.copies import learned_responses
from heed.answers.partial import partial_file
from heed.config import EvalConfig
from heed.data.records import Record
from heed.data.rows import Refusal
from heed.data.sources import Source, locations, read
from heed.errors import UserError
from heed.evaluation.askers import EndpointAsker, LocalAsker, Questions, endpoint_model
from heed.evaluation.controls import Controls, make_controls, read_rewordings
from heed.evaluation.forgetting import text_to_read
from heed.evaluation.judged import judged_items
from heed.evaluation.kept import (
    Answers,
    Asked,
    Evaluation,
    answers_sha256,
    keep_systems,
    read_answers,
    write_evaluation,
)
from heed.evaluation.taking import Taken, plan_taking, refuse_absent
from heed.files import run_folder
from heed.files.hashes import file_sha256
from heed.judge.judging import answers_hash, group, judged_answers
from heed.measure.rows import drop_rows
from heed.runs.finished import Subject, find_bases, find_run, resolved_sft_config, set_aside
from heed.saying import Say, count

if TYPE_CHECKING:  # heavy, and only named here
    from heed.prompts.template import Prompt

ANSWER_FILES = (
    run_folder.BASE_RESPONSES_FILE,
    run_folder.FIRST_BASE_RESPONSES_FILE,
    run_folder.OWN_TEMPLATE_RESPONSES_FILE,
    run_folder.RESPONSES_FILE,
)


ASKED = (
    *("model_name_or_path", "model_revision", "dtype", "load_in_4bit", "load_in_8bit", "prompt"),
    *("data", "columns", "on_bad_row", "split", "limit", "responses"),
    *("engine", "max_new_tokens", "base_url", "endpoint_model"),
)


@dataclass(frozen=True, kw_only=True)
class Interview:
    """Questions and the models to answer them, or the file with the other one's answers."""

    questions: Questions
    n_full: int
    limit: int | None
    data: str
    split: str | None
    asker: LocalAsker | EndpointAsker
    subject: Subject
    others: list[Subject]
    """The model it is compared with, and of a run on preferences also the one before that."""
    other_file: Path | None


def plan_answers(ours: EvalConfig, word: str | None, say: Say) -> Taken | Interview:
    """Reports here what keeps answers from being made: no model is loaded and nothing written yet."""
    return plan_taking(ours, word, say) if ours.responses is not None else plan_asking(ours, word, say)


def plan_asking(ours: EvalConfig, word: str | None, say: Say) -> Interview:
    lengths = {"limit": ours.limit, "max_new_tokens": ours.max_new_tokens, "control_rows": ours.control_rows}
    for name, value in lengths.items():
        if value is not None and value < 1:
            raise UserError(f"{name}: {value} leaves nothing to answer; give 1 or more")
    run = find_run(ours.model_name_or_path) if ours.model_name_or_path is not None else None
    limit = ours.limit
    subject = Subject(
        name="tuned" if run else "model",
        model=ours.model_name_or_path or endpoint_model(ours),
        revision=ours.model_revision,
    )
    asker = EndpointAsker(ours) if ours.engine == "endpoint" else LocalAsker(ours, ours.engine, run)
    asker.learn_prompt(ours, subject)
    records, data, split = read_records(ours, run, asker.prompt.refusal if asker.prompt else None, say)
    asked = [with_reference(record, asker.prompt) for record in records[:limit]]
    rewordings = read_rewordings(Path(ours.paraphrases), asked) if ours.paraphrases is not None else {}
    others, other_file = list[Subject](), None
    if ours.compare_with is not None:
        if ours.compare_with_base:
            raise UserError("compare_with_base and compare_with contradict each other; keep one of them")
        if ours.compare_with.endswith(".json"):
            other_file = Path(ours.compare_with)
            refuse_absent(other_file)
        else:
            others = [Subject(name="other", model=ours.compare_with)]
    elif ours.compare_with_base or word == "compare":
        others = find_bases(subject.model, run)
    for other in others:
        asker.check_second(other)
    questions = Questions(
        records=asked,
        text=text_to_read(ours.forgetting, run, say) if others else None,
        controls=make_controls(asked, kinds=ours.controls, rows=ours.control_rows, rewordings=rewordings),
        learned=learned_responses(run, others=ours.data is not None),
    )
    return Interview(
        questions=questions,
        n_full=len(records),
        limit=limit,
        data=data,
        split=split,
        asker=asker,
        subject=subject,
        others=others,
        other_file=other_file,
    )


def read_records(
    ours: EvalConfig, run: Path | None, refusal: Refusal | None, say: Say
) -> tuple[list[Record], str, str | None]:
    """The rows to answer, where they come from, and which split of a run they are."""
    if ours.data is not None:
        source = Source(data=ours.data, columns=ours.columns, on_bad_row=ours.on_bad_row)
        rows = read(source, refusal).rows
        for note in rows.notes:
            say(f"{ours.data}: {note}")
        return rows.records, ours.data, None
    if run is None:
        what = ours.model_name_or_path or "an endpoint"
        raise UserError(f"data is missing: {what} is not a run folder that would know its own test rows")
    data = resolved_sft_config(run).data
    of_split = data if isinstance(data, str) else data.get(ours.split, data)
    return set_aside(run, ours.split), ", ".join(locations(of_split)), ours.split


def with_reference(record: Record, prompt: "Prompt | None") -> Record:
    """A row whose answer calls a tool, with the answer as the template shows it and a model would write it."""
    if prompt is None or "tool_calls" not in record.messages[-1]:
        return record
    ids, [(start, end)] = prompt.encode(record.messages)
    return replace(record, reference=prompt.answer_text(ids[start : end - 1]))


def keys_of(ours: EvalConfig) -> dict[str, Any]:
    """The keys that were set and say who answers what."""
    defaults = vars(EvalConfig())
    return {name: value for name, value in vars(ours).items() if name in ASKED and value != defaults[name]}


def answer(planned: Taken | Interview, folder: Path, keys: Mapping[str, Any], say: Say) -> tuple[Evaluation, Answers]:
    """Have the answers in the folder and evaluation.json written; what was measured on other answers is removed."""
    began = time.monotonic()
    evaluation = take(planned, folder) if isinstance(planned, Taken) else ask(planned, folder, say)
    answers = read_answers(folder, evaluation, say)
    evaluation = replace(
        evaluation,
        data_sha256=answers_sha256(answers[evaluation.evaluated]),
        seconds=round(time.monotonic() - began, 1),
        keys=keys,
    )
    discard_earlier(folder, evaluation, answers, say)
    write_evaluation(folder, evaluation)
    if evaluation.controls_sha256 is None:
        (folder / run_folder.CONTROLS_FILE).unlink(missing_ok=True)
    for file in ANSWER_FILES:  # not before: until now an interrupted run would have continued from them
        partial_file(folder / file).unlink(missing_ok=True)
    return evaluation, answers


def take(taken: Taken, folder: Path) -> Evaluation:
    files = taken.files_for(folder)
    systems = {name: asked_of(folder, file, model=taken.models[name]) for name, file in files.items()}
    return record(systems, data=taken.data, split=None, n=taken.n, n_full=taken.n)


def ask(interview: Interview, folder: Path, say: Say) -> Evaluation:
    asker, questions, subject, others = interview.asker, interview.questions, interview.subject, interview.others
    rows = count(len(questions.records), f"{interview.split} row" if interview.split else "row")
    say(f"Heed {__version__}: {rows} of {interview.data}, prompt {asker.prompt_name}")
    if questions.controls:
        say(str(questions.controls))
    systems: dict[str, Asked] = {}
    if interview.other_file is not None:
        systems["other"] = asked_of(folder, interview.other_file.resolve(), model=str(interview.other_file))
    other, first = (*others, None, None)[:2]
    own = None
    if others and isinstance(asker, LocalAsker):
        own = asker.in_own_template(others[-1], questions.records, say)
    for each, name in zip((other, first, own, subject), ANSWER_FILES, strict=True):
        if each is None:
            continue
        theirs = questions if each is subject else replace(questions, controls=Controls())
        contract = asker.answer(each, theirs, folder / name, say)
        systems[each.name] = asked_of(
            folder,
            folder / name,
            model=each.model,
            revision=each.revision,
            contract=contract,
            own_template=each.own_template,
        )
    return record(
        systems,
        data=interview.data,
        split=interview.split,
        n=len(questions.records),
        n_full=interview.n_full,
        limit=interview.limit,
        prompt=asker.prompt_name,
        contract=asker.template_sha256,
        engine=asker.engine,
        max_new_tokens=asker.max_new_tokens,
        device=asker.device,
        controls_sha256=file_sha256(folder / run_folder.CONTROLS_FILE) if questions.controls else None,
    )


def asked_of(
    folder: Path,
    file: Path,
    *,
    model: str,
    revision: str | None = None,
    contract: str | None = None,
    own_template: bool = False,
) -> Asked:
    return Asked(
        model=model,
        revision=revision,
        responses=file.name if file.parent == folder else str(file),
        responses_sha256=file_sha256(file),
        contract=contract,
        own_template=own_template,
    )


def record(systems: dict[str, Asked], **facts: Any) -> Evaluation:
    """evaluation.json as far as it is known before all is answered."""
    unknown: dict[str, Any] = dict.fromkeys(
        ("limit", "prompt", "contract", "engine", "max_new_tokens", "device", "seconds")
    )
    return Evaluation(
        **(unknown | facts),
        heed=__version__,
        systems=systems,
        data_sha256="",
        versions=run_folder.versions(),
        command=shlex.join(sys.argv),
        time=run_folder.now(),
    )


def discard_earlier(folder: Path, evaluation: Evaluation, answers: Answers, say: Say) -> None:
    """Remove what was measured or judged on other answers; beside the new ones it would mislead.

    Benchmarks stay, and the judge's replies in its cache.
    """
    if answer_hashes(folder) == {
        "controls": evaluation.controls_sha256,
        **{name: asked.responses_sha256 for name, asked in evaluation.systems.items()},
    }:
        return
    for file in (run_folder.ITEMS_FILE, run_folder.COMPARISON_FILE):
        (folder / file).unlink(missing_ok=True)
    drop_rows(folder, ("metrics", "stop", "comparison", "controls", "forgetting"))
    asked_here = evaluation.engine not in (None, "endpoint")
    asked = {name for name, each in evaluation.systems.items() if asked_here and each.contract}
    for file in (run_folder.STOPS_FILE, run_folder.FORGETTING_FILE):
        keep_systems(folder / file, asked)
    earlier = judged_answers(folder)
    if earlier is not None and earlier != answers_hash(group(judged_items(answers))):
        say("judge: what was said here was about other answers and is removed; its replies stay in the cache")
        drop_rows(folder, ("judge",))
        (folder / run_folder.JUDGE_FILE).unlink(missing_ok=True)
        (folder / run_folder.JUDGE_SUMMARY_FILE).unlink()  # last: after a kill it is found here again


def answer_hashes(folder: Path) -> dict[str, str | None]:
    """System -> hash of its answers, as evaluation.json has them now; those to controls too."""
    path = folder / run_folder.EVALUATION_FILE
    known = run_folder.read_json(path) if path.is_file() else {}
    hashes = {name: asked["responses_sha256"] for name, asked in known.get("systems", {}).items()}
    return {"controls": known.get("controls_sha256"), **hashes}
