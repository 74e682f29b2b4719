"""What is judged and what comes out: an answer with its row, a verdict with all that is needed to check it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from heed.judge.asking import Judged

Side = Literal["a", "b", "tie"]


@dataclass(frozen=True, kw_only=True)
class JudgedAnswer:
    """One system's answer to one row; the fields are those of responses.json."""

    name: str
    """The system that answered: base, tuned, model."""
    row_id: int
    instruction: str
    input: str
    output: str
    """The reference."""
    model_response: str

    @property
    def asked(self) -> dict[str, str]:
        """The texts that a judge needs besides the answer."""
        return {"instruction": self.instruction, "input": self.input, "reference": self.output}


@dataclass(frozen=True, kw_only=True)
class ScoreVerdict:
    """A line of judge.jsonl. A failure has no score: it is neither dropped nor 0."""

    kind: Literal["score"] = "score"
    judge: str
    prompt: str
    name: str
    row_id: int
    control: str | None
    """reference, empty, shuffled or injection; None for a system's own answer."""
    score: float | None
    reason: str
    failure: str | None
    how: str | None
    raw: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached: bool
    key: str


@dataclass(frozen=True, kw_only=True)
class PairVerdict:
    """A line of judge.jsonl: two answers compared in one of the two orders."""

    kind: Literal["pair"] = "pair"
    judge: str
    prompt: str
    a: str
    b: str
    row_id: int
    control: str | None
    first: Literal["a", "b"]
    """Which of the two was shown first."""
    winner: Side | None
    reason: str
    failure: str | None
    how: str | None
    raw: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached: bool
    key: str


def how_it_came(asked: Judged) -> dict[str, Any]:
    """The fields that both kinds of verdict share."""
    return {
        "reason": asked.verdict.reason,
        "failure": asked.verdict.failure,
        "how": asked.verdict.how,
        "raw": asked.reply.text if asked.reply else None,
        "prompt_tokens": asked.reply.prompt_tokens if asked.reply else None,
        "completion_tokens": asked.reply.completion_tokens if asked.reply else None,
        "cached": asked.cached,
        "key": asked.key,
    }


def verdict_of(line: Mapping[str, Any]) -> ScoreVerdict | PairVerdict:
    return ScoreVerdict(**line) if line["kind"] == "score" else PairVerdict(**line)
