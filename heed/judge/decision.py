"""A judge without parsing: transformers' decision pipeline reads from one forward pass how likely each anchor is."""

import json
from collections.abc import Sequence
from typing import Any, Self

from heed.errors import UserError, reason_of
from heed.judge.cache import Reply
from heed.judge.client import Unanswered
from heed.judge.parsing import Verdict
from heed.judge.prompts import Message, Question
from heed.models.identity import model_sha256

SHOWN_AS = {"response": "answer", "first": "answer A", "second": "answer B"}
"""The names that anchors and options go by."""


class DecisionBackend:
    """A local chat model that chooses among the anchors of a rubric, or among the options of a pair.

    Its score is the mean of the anchors, each weighted by its probability. Texts reach the model as strings of JSON,
    out of which they cannot break, and the pipeline tokenizes control tokens in them as text.
    """

    name = "decision"
    concurrency = 1  # one model, one forward pass at a time

    def __init__(self, model: str) -> None:
        self.model = self.server = model
        self._pipeline = load_pipeline(model)
        self._fingerprint = model_sha256(model)

    def prepare(self, questions: Sequence[Question]) -> None:
        """Ask once, so that a model that cannot answer is known before all rows fail."""
        for question in questions[:1]:
            if not question.options or not question.question:
                raise UserError(
                    "judge_prompt: judge_backend: decision needs a prompt with a question and anchors (options, for "
                    "a pair), as rubric and pair have them; see prompts/judge/rubric.jinja"
                )
            try:
                self._pipeline.preprocess(self.body(question, frozenset())["request"])
                self._pipeline.label_token_ids(tuple("ABCDEFGH"[: len(question.options)]))
            except ValueError as error:  # no chat template, or labels that are not single tokens
                raise UserError(f"judge_model: {self.model} cannot decide ({error})") from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        """The model stays loaded for the next batch of questions."""

    def body(self, question: Question, without: frozenset[str], more: Sequence[Message] = ()) -> dict[str, Any]:
        options = question.options or {}
        criteria: Any = options if question.kind == "pair" else [options[score] for score in sorted(options)]
        typed = {"type": "choice" if question.kind == "pair" else "score", "criteria": criteria}
        state = {SHOWN_AS.get(name, name): text for name, text in question.texts.items()}
        request = {"state": state, "questions": {"verdict": {**typed, "instructions": question.question}}}
        return {"model": self.model, "fingerprint": self._fingerprint, "request": request}

    async def ask(self, body: dict[str, Any]) -> Reply:
        from heed.models.loading import context_length

        [(inputs, _)] = self._pipeline.preprocess(body["request"])["prompts"]
        tokens, most = inputs["input_ids"].shape[-1], context_length(self._pipeline.model)
        if tokens > most:
            raise Unanswered("too_long", f"{tokens} tokens, and the model has {most} positions")
        answer = self._pipeline(body["request"])["verdict"]
        return Reply(text=json.dumps(answer), prompt_tokens=tokens, completion_tokens=0)

    def read(self, question: Question, reply: Reply) -> Verdict:
        answer = json.loads(reply.text)
        anchors = question.options or {}
        if question.kind == "pair":
            return Verdict(value=answer["choice"], reason=shares(answer["probabilities"]), how="decision")
        probabilities = dict(zip(sorted(anchors), answer["probabilities"].values(), strict=True))
        score = sum(anchor * probability for anchor, probability in probabilities.items())
        return Verdict(value=round(score, 1), reason=shares(probabilities), how="decision")


def shares(probabilities: dict[Any, float]) -> str:
    return ", ".join(f"{option}: {probability:.0%}" for option, probability in probabilities.items())


def load_pipeline(model: str) -> Any:
    """Raises UserError where transformers has no decision pipeline, or the model cannot be loaded."""
    import torch
    import transformers
    from transformers import pipeline
    from transformers.pipelines import PIPELINE_REGISTRY

    if "decision" not in PIPELINE_REGISTRY.get_supported_tasks():
        raise UserError(
            f"judge_backend: decision needs transformers' decision pipeline, which {transformers.__version__} lacks "
            "(5.23 has it); use openai or ollama"
        )
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    try:
        return pipeline(
            "decision",
            model=model,
            device=device,
            dtype="auto",
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except (OSError, ValueError) as error:
        raise UserError(f"judge_model: {model} could not be loaded ({reason_of(error)})") from error
