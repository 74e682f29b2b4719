"""The models under evaluation are asked, here or through a server, and what they answered is kept."""

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heed import __version__
from heed.config import EvalConfig
from heed.errors import UserError
from heed.files import run_folder
from heed.saying import Say

if TYPE_CHECKING:  # heavy: imported below, once the command line is known to be good
    from heed.answers.generation import Engine
    from heed.answers.partial import OnResponse, Response
    from heed.data.records import Record
    from heed.evaluation.stages import Asked, Evaluation
    from heed.judge.judging import JudgeSettings
    from heed.prompts.template import Prompt
    from heed.runs.finished import Subject


ANSWER_FILES = (run_folder.RESPONSES_FILE, run_folder.BASE_RESPONSES_FILE)


def judge_settings(ours: EvalConfig) -> "JudgeSettings | None":
    from heed.judge.judging import JudgeSettings

    if ours.judge_backend is None:
        return None
    if ours.judge_model is None:
        raise UserError(f"judge_model is missing: which model of {ours.judge_backend} is to judge?")
    defaults = JudgeSettings(backend=ours.judge_backend, model=ours.judge_model)
    prices = ours.judge_prices
    if prices is not None and len(prices) != 2:
        raise UserError(f"judge_prices: {prices} is not [prompt, completion]")
    if ours.judge_max_cost is not None and prices is None:
        raise UserError("judge_max_cost: without judge_prices nobody knows what a request costs")
    return replace(
        defaults,
        base_url=ours.judge_base_url,
        mode=ours.judge_mode,
        prompt=ours.judge_prompt if ours.judge_mode != "pair" else defaults.prompt,
        pair_prompt=ours.judge_pair_prompt if ours.judge_mode != "score" else defaults.pair_prompt,
        concurrency=ours.judge_concurrency,
        timeout=ours.judge_timeout,
        retries=ours.judge_retries,
        max_tokens=ours.judge_max_tokens,
        control_rows=ours.judge_control_rows,
        prices=(prices[0], prices[1]) if prices is not None else None,
        max_cost=ours.judge_max_cost,
        seed=ours.judge_seed,
    )


def answer_rows(
    ours: EvalConfig, word: str | None, folder: Path, *, check: Callable[[], None], say: Say
) -> "Evaluation":
    """Ask every model of the evaluation, or take the files that hold their answers; write evaluation.json."""
    from heed.answers.partial import partial_file
    from heed.evaluation.stages import discard_earlier, read_answers, rows_sha256, write_evaluation

    began = time.monotonic()
    if ours.responses is not None:
        evaluation = taken_answers(ours, folder, check)
        run_folder.make_folder(folder)
    else:
        evaluation = asked_answers(ours, word, folder, check=check, say=say)
    answers = read_answers(folder, evaluation, say)
    evaluation = replace(
        evaluation,
        data_sha256=rows_sha256(answers[evaluation.evaluated]),
        seconds=round(time.monotonic() - began, 1),
    )
    discard_earlier(folder, evaluation, answers, say)
    write_evaluation(folder, evaluation)
    for file in ANSWER_FILES:  # not before: until now an interrupted run would have gone on with them
        partial_file(folder / file).unlink(missing_ok=True)
    return evaluation


def taken_answers(ours: EvalConfig, folder: Path, check: Callable[[], None]) -> "Evaluation":
    """An evaluation of files of answers, which other tools may have written."""
    from heed.answers.responses import read_responses

    assert ours.responses is not None
    systems = {}
    if ours.compare_with is not None:
        systems["other"] = asked_of(folder, Path(ours.compare_with).resolve(), model=ours.compare_with)
    model = ours.model_name_or_path or ours.responses
    systems["model"] = asked_of(folder, Path(ours.responses).resolve(), model=model)
    check()
    rows = len(read_responses(Path(ours.responses), say=lambda text: None))
    return record(systems, data=ours.responses, split=None, n=rows, n_full=rows)


def asked_answers(
    ours: EvalConfig, word: str | None, folder: Path, *, check: Callable[[], None], say: Say
) -> "Evaluation":
    """Ask the models themselves, on this machine or through an endpoint."""
    from heed.runs.finished import Subject, find_base, find_run

    for name, value in {"limit": ours.limit, "max_new_tokens": ours.max_new_tokens}.items():
        if value is not None and value < 1:
            raise UserError(f"{name}: {value} leaves nothing to answer; give 1 or more")
    run = find_run(ours.model_name_or_path) if ours.model_name_or_path is not None else None
    records, data, split = read_records(ours, run)
    limit = ours.limit
    subject = Subject(
        name="tuned" if run else "model",
        model=ours.model_name_or_path or endpoint_model(ours),
        revision=ours.model_revision,
    )
    asker = EndpointAsker(ours) if ours.engine == "endpoint" else LocalAsker(ours, ours.engine, run)
    asker.learn_prompt(ours, subject)
    other: Subject | Path | None = None
    if ours.compare_with is not None:
        if ours.compare_with_base:
            raise UserError("compare_with_base and compare_with contradict each other; keep one of them")
        found = Path(ours.compare_with)
        other = found.resolve() if found.suffix == ".json" else Subject(name="other", model=ours.compare_with)
    elif ours.compare_with_base or word == "compare":
        other = find_base(subject.model, run)
    if isinstance(other, Subject):
        asker.check_second(other)
    check()

    run_folder.make_folder(folder)
    kept = records[:limit]
    say(f"Heed {__version__}: {len(kept)} {split or data} rows, prompt {asker.prompt_name}")
    systems: dict[str, Asked] = {}
    if isinstance(other, Path):
        systems["other"] = asked_of(folder, other, model=str(ours.compare_with))
    for each in [other, subject] if isinstance(other, Subject) else [subject]:
        file = folder / (run_folder.RESPONSES_FILE if each is subject else run_folder.BASE_RESPONSES_FILE)
        asker.answer(each, kept, file, say=say)
        systems[each.name] = asked_of(
            folder, file, model=each.model, revision=each.revision, contract=asker.template_sha256
        )
    return record(
        systems,
        data=data,
        split=split,
        n=len(kept),
        n_full=len(records),
        limit=limit,
        prompt=asker.prompt_name,
        contract=asker.template_sha256,
        engine=asker.engine,
        max_new_tokens=ours.max_new_tokens,
        device=asker.device,
    )


def asked_of(
    folder: Path, file: Path, *, model: str, revision: str | None = None, contract: str | None = None
) -> "Asked":
    from heed.evaluation.stages import Asked
    from heed.files.hashes import file_sha256

    if not file.is_file():
        raise UserError(f"{file}: no such file of answers")
    name = file.name if file.parent == folder else str(file)
    return Asked(model=model, revision=revision, responses=name, responses_sha256=file_sha256(file), contract=contract)


def record(systems: "dict[str, Asked]", **facts: Any) -> "Evaluation":
    """evaluation.json as far as it is known before all is answered."""
    from heed.evaluation.stages import Evaluation

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


def read_records(ours: EvalConfig, run: Path | None) -> "tuple[list[Record], str, str | None]":
    """The rows to answer, where they come from, and which split of a run they are."""
    from heed.data.sources import Source, read
    from heed.runs.finished import resolved_sft_config, set_aside

    if ours.data is not None:
        source = Source(data=ours.data, columns=ours.columns, on_bad_row=ours.on_bad_row)
        return read(source).rows.records, ours.data, None
    if run is None:
        what = ours.model_name_or_path or "an endpoint"
        raise UserError(f"data is missing: {what} is no run folder that would know its own test rows")
    data = resolved_sft_config(run).data
    name = data if isinstance(data, str) else data.get(ours.split, ", ".join(data.values()))
    return set_aside(run, ours.split), name, ours.split


class LocalAsker:
    """Models on this machine, loaded one after the other, all asked with the prompt contract of the evaluated one."""

    def __init__(self, ours: EvalConfig, engine: "Engine", run: Path | None) -> None:
        from heed.runs.finished import in_4bit

        self.engine = engine
        self.batch_size, self.max_new_tokens = ours.batch_size, ours.max_new_tokens
        if self.batch_size is not None and self.batch_size < 1:
            raise UserError(f"batch_size: {self.batch_size} answers nothing; give 1 or more, or leave it out")
        self.dtype, self.load_in_4bit = ours.dtype, in_4bit(run, ours.load_in_4bit)
        self.device = "cpu"

    def learn_prompt(self, ours: EvalConfig, subject: "Subject") -> None:
        from heed.answers.subjects import find_prompt

        self.prompt, self.contract = find_prompt(subject.model, subject.revision, ours.prompt)
        self.prompt_name, self.template_sha256 = self.prompt.name, self.contract.template_sha256

    def check_second(self, other: "Subject") -> None:
        """Raises UserError for a model that was trained with another prompt: the comparison would be one of prompts."""
        from heed.prompts.template import fetch_contract

        contract = fetch_contract(other.model, other.revision)
        if contract is not None and contract.template_sha256 != self.template_sha256:
            raise UserError(
                f"compare_with: {other.model} was trained with the prompt {contract.prompt}, the evaluated model with "
                f"{self.prompt.name}; answer the rows with each (generate), then score its responses.json against the "
                "other's, which is a comparison of prompts as well"
            )

    def prompt_of(self, subject: "Subject") -> "tuple[Prompt, list[int]]":
        """The evaluated model's template at work with the subject's own tokenizer, and where answers end."""
        from heed.answers.subjects import shared_prompt

        return shared_prompt(self.prompt, self.contract, subject)

    def answer(self, subject: "Subject", records: "Sequence[Record]", file: Path, *, say: Say) -> None:
        """Write the subject's answers, and how likely it is to stop where the references do."""
        from tqdm.auto import tqdm

        from heed.answers.generation import generate
        from heed.answers.partial import model_identity, partial_file, resumed, row_keys
        from heed.answers.responses import response_rows
        from heed.answers.subjects import load_subject
        from heed.evaluation.stages import write_stops
        from heed.evaluation.stops import stop_measurements

        prompt, stop_token_ids = self.prompt_of(subject)
        prompts_ids = [prompt.encode_prompt(record.messages[:-1]) for record in records]
        request = {
            "model": model_identity(subject.model, subject.revision),
            "contract": self.template_sha256,
            "stop_token_ids": stop_token_ids,
            "max_new_tokens": self.max_new_tokens,
            "dtype": self.dtype,
            "load_in_4bit": self.load_in_4bit,
        }
        model = load_subject(subject, dtype=self.dtype, load_in_4bit=self.load_in_4bit)
        self.device = str(model.device)
        with tqdm(total=len(records), desc=f"{subject.name} {subject.model}", unit="row") as bar:

            def tell(text: str) -> None:
                bar.write(f"{subject.name} {subject.model}: {text}")

            def ask(missing: list[int], on_response: "OnResponse") -> None:
                generate(
                    model,
                    prompt,
                    [prompts_ids[index] for index in missing],
                    stop_token_ids=stop_token_ids,
                    batch_size=self.batch_size,
                    max_new_tokens=self.max_new_tokens,
                    engine=self.engine,
                    on_response=lambda place, response: on_response(missing[place], response),
                    say=tell,
                )

            def write(responses: "list[Response]") -> None:
                run_folder.write_json(file, response_rows(records, responses))

            resumed(
                partial_file(file),
                row_keys(request, prompts_ids),
                ask,
                write=write,
                on_response=lambda index, response: bar.update(),
                say=tell,
            )
        examples = [prompt.encode(record.messages)._asdict() for record in records]
        stops = stop_measurements(model, examples, eos_token_id=prompt.eos_token_id, say=say)
        write_stops(file.parent, subject.name, [record.row_id for record in records], stops)


class EndpointAsker:
    """A server that runs the model, on this machine or elsewhere."""

    engine = "endpoint"

    def __init__(self, ours: EvalConfig) -> None:
        from heed.answers.endpoint import Endpoint

        if ours.base_url is None:
            raise UserError("base_url is missing: engine: endpoint asks a server, such as http://127.0.0.1:8000/v1")
        self.endpoint = Endpoint(
            base_url=ours.base_url,
            model=endpoint_model(ours),
            concurrency=ours.concurrency,
            timeout=ours.timeout,
        )
        self.max_new_tokens = ours.max_new_tokens
        self.device = self.endpoint.base_url

    def learn_prompt(self, ours: EvalConfig, subject: "Subject") -> None:
        """The contract of the model that the server runs, where that model is at hand; else the server's own prompt."""
        from heed.answers.subjects import find_prompt

        self.prompt: Prompt | None = None
        self.prompt_name, self.template_sha256 = "the server's own", None
        if ours.model_name_or_path is not None:
            self.prompt, contract = find_prompt(subject.model, subject.revision, ours.prompt)
            self.prompt_name, self.template_sha256 = self.prompt.name, contract.template_sha256

    def check_second(self, other: "Subject") -> None:
        raise UserError(
            f"engine: endpoint asks one server, which does not run {other.model}; let that answer by itself, and give "
            "its responses.json as compare_with"
        )

    def answer(self, subject: "Subject", records: "Sequence[Record]", file: Path, *, say: Say) -> None:
        from tqdm.auto import tqdm

        from heed.answers.endpoint import ask
        from heed.answers.partial import partial_file, resumed, row_keys
        from heed.answers.responses import response_rows

        conversations = [record.messages[:-1] for record in records]
        request = {
            "base_url": self.endpoint.base_url,
            "model": self.endpoint.model,
            "contract": self.template_sha256,
            "max_new_tokens": self.max_new_tokens,
        }
        with tqdm(total=len(records), desc=f"{subject.name} {subject.model}", unit="row") as bar:
            resumed(
                partial_file(file),
                row_keys(request, [list(each) for each in conversations]),
                lambda missing, on_response: ask(
                    self.endpoint,
                    [conversations[index] for index in missing],
                    prompt=self.prompt,
                    max_new_tokens=self.max_new_tokens,
                    on_response=lambda place, response: on_response(missing[place], response),
                    say=bar.write,
                ),
                write=lambda responses: run_folder.write_json(file, response_rows(records, responses)),
                on_response=lambda index, response: bar.update(),
                say=bar.write,
            )


def endpoint_model(ours: EvalConfig) -> str:
    name = ours.endpoint_model or ours.model_name_or_path
    if name is None:
        raise UserError("model_name_or_path is missing: a run folder, or any model folder or Hub id")
    return name
