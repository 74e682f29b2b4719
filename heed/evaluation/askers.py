"""Who answers: models on this machine, or a server. Each is given the rows and writes a file of answers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from heed.answers.responses import response_rows
from heed.config import EvalConfig
from heed.data.records import Record
from heed.errors import UserError
from heed.evaluation.controls import Controls, write_controls
from heed.files import run_folder
from heed.runs.finished import Subject, weight_bits
from heed.saying import Progress, Say

if TYPE_CHECKING:  # heavy: imported below, once it is known that a model is to be asked
    from heed.answers.generation import Engine
    from heed.answers.partial import OnResponse, Response
    from heed.prompts.template import Prompt


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What a model is asked, and what is to be known of its answers."""

    records: Sequence[Record]
    controls: Controls
    learned: frozenset[int]
    """Fingerprints of what the training rows answer, as far as those are at hand."""
    text: Path | None
    """What both models read, to show what one has lost."""


class LocalAsker:
    """Models on this machine, loaded one after the other, all asked with the prompt contract of the evaluated one."""

    def __init__(self, ours: EvalConfig, engine: "Engine", run: Path | None) -> None:
        self.engine = engine
        self.batch_size, self.max_new_tokens = ours.batch_size, ours.max_new_tokens
        if self.batch_size is not None and self.batch_size < 1:
            raise UserError(f"batch_size: {self.batch_size} answers nothing; give 1 or more, or leave it out")
        self.dtype, self.bits = ours.dtype, weight_bits(run, ours.load_in_4bit, ours.load_in_8bit)
        self.device = "cpu"

    def learn_prompt(self, ours: EvalConfig, subject: Subject) -> None:
        from heed.answers.subjects import find_prompt

        self.prompt, self.contract = find_prompt(subject.model, subject.revision, ours.prompt)
        self.prompt_name, self.template_sha256 = self.prompt.name, self.contract.template_sha256

    def check_second(self, other: Subject) -> None:
        """Raises UserError for a model trained with another prompt: the comparison would be between prompts."""
        from heed.prompts.template import fetch_contract

        contract = fetch_contract(other.model, other.revision)
        if contract is not None and contract.template_sha256 != self.template_sha256:
            raise UserError(
                f"compare_with: {other.model} was trained with the prompt {contract.prompt}, the evaluated model with "
                f"{self.prompt.name}; answer the rows with each (generate), then score its responses.json against the "
                "other's, which is a comparison of prompts as well"
            )

    def in_own_template(self, other: Subject, records: Sequence[Record], say: Say) -> Subject | None:
        """A second model is asked as it came, too: in a template that it never saw it may know less than it does."""
        from heed.answers.subjects import in_own_template, shared_prompt

        own = in_own_template(other, self.contract)
        try:
            if own is None:
                return None
            prompt, _ = shared_prompt(self.prompt, self.contract, own)
            reason = next(filter(None, map(prompt.refusal, records)), None)
        except UserError as error:
            reason = str(error)
        if reason is not None:
            say(f"{other.name} is not asked in its own template: {reason}")
        return own if reason is None else None

    def answer(self, subject: Subject, questions: Questions, file: Path, say: Say) -> str:
        """Write the subject's answers, and how likely it is to stop where the references do.

        Returns the hash of the template that it was asked with.
        """
        from heed.answers.generation import generate
        from heed.answers.partial import partial_file, resumed, row_keys
        from heed.answers.subjects import load_subject, shared_prompt, stored
        from heed.evaluation.forgetting import keep_texts, measure_texts, read_texts
        from heed.evaluation.stops import stop_numbers, write_stops
        from heed.models.identity import model_sha256
        from heed.models.loading import context_length

        prompt, stop_token_ids = shared_prompt(self.prompt, self.contract, subject)
        sha256 = prompt.contract().template_sha256
        records = questions.records
        prompts_ids = [prompt.encode_prompt(record.messages[:-1]) for record in records]
        controls_ids = [prompt.encode_prompt(each.record.messages[:-1]) for each in questions.controls.asked]
        request = {
            "model": model_sha256(subject.model, subject.revision),
            "contract": sha256,
            "stop_token_ids": stop_token_ids,
            "max_new_tokens": self.max_new_tokens,
            "dtype": self.dtype,
            **stored(self.bits),
        }
        model = load_subject(subject, dtype=self.dtype, bits=self.bits)
        self.device = str(model.device)
        fits = [len(ids) < context_length(model) for ids in controls_ids]
        questions = replace(questions, controls=questions.controls.fitting(fits))
        prompts_ids += [ids for ids, fit in zip(controls_ids, fits, strict=True) if fit]
        with Progress(f"{subject.name} answers", len(prompts_ids)) as bar:

            def tell(text: str) -> None:
                say(type(text)(f"{subject.name} {subject.model}: {text}"))

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

            resumed(
                partial_file(file),
                row_keys(request, prompts_ids),
                ask,
                write=lambda responses: write_answers(file, questions, responses),
                on_response=lambda index, response: bar.update(),
                say=tell,
            )
        examples = [prompt.encode(record.messages)._asdict() for record in records]
        stops = stop_numbers(model, examples, eos_token_id=prompt.eos_token_id, say=say)
        write_stops(file.parent, subject.name, [record.row_id for record in records], stops)
        if questions.text is not None and not subject.own_template:  # plain text has no template
            found = measure_texts(model, prompt.tokenizer, read_texts(questions.text, lambda text: None))
            keep_texts(file.parent, subject.name, questions.text, found)
        return sha256


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

    def learn_prompt(self, ours: EvalConfig, subject: Subject) -> None:
        """The contract of the model that the server runs, if it is at hand; otherwise the server's own prompt."""
        from heed.answers.subjects import find_prompt

        self.prompt: Prompt | None = None
        self.prompt_name, self.template_sha256 = "the server's own", None
        if ours.model_name_or_path is not None:
            self.prompt, contract = find_prompt(subject.model, subject.revision, ours.prompt)
            self.prompt_name, self.template_sha256 = self.prompt.name, contract.template_sha256

    def check_second(self, other: Subject) -> None:
        raise UserError(
            f"engine: endpoint asks one server, which does not run {other.model}; run that one by itself and "
            "give its responses.json as compare_with"
        )

    def answer(self, subject: Subject, questions: Questions, file: Path, say: Say) -> str | None:
        from heed.answers.endpoint import ask
        from heed.answers.partial import partial_file, resumed, row_keys

        asked = [*questions.records, *(each.record for each in questions.controls.asked)]
        conversations = [record.messages[:-1] for record in asked]
        request = {
            "base_url": self.endpoint.base_url,
            "model": self.endpoint.model,
            "contract": self.template_sha256,
            "max_new_tokens": self.max_new_tokens,
        }
        with Progress(f"{subject.name} answers", len(asked)) as bar:
            resumed(
                partial_file(file),
                row_keys(request, [list(each) for each in conversations]),
                lambda missing, on_response: ask(
                    self.endpoint,
                    [conversations[index] for index in missing],
                    prompt=self.prompt,
                    max_new_tokens=self.max_new_tokens,
                    on_response=lambda place, response: on_response(missing[place], response),
                    say=say,
                ),
                write=lambda responses: write_answers(file, questions, responses),
                on_response=lambda index, response: bar.update(),
                say=say,
            )
        return self.template_sha256


def write_answers(file: Path, questions: Questions, responses: "Sequence[Response]") -> None:
    """The answers to controls, which come last, into a file of their own beside those to the rows."""
    records = questions.records
    if questions.controls:
        write_controls(file.parent, questions.controls, responses[len(records) :])
    run_folder.write_json(file, response_rows(records, responses[: len(records)], questions.learned))


def endpoint_model(ours: EvalConfig) -> str:
    name = ours.endpoint_model or ours.model_name_or_path
    if name is None:
        raise UserError("model_name_or_path is missing: a run folder, or any model folder or Hub id")
    return name
