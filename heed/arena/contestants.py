"""What the arena shows: recorded answers, or models that are asked live, through one kind of function."""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from heed.answers.responses import read_responses
from heed.arena.matches import Question
from heed.arena.votes import Name, Vote, sha256
from heed.data.records import Message
from heed.errors import UserError
from heed.saying import Say


@dataclass(frozen=True, kw_only=True)
class Said:
    text: str
    cut: bool = False
    """Whether it ended at the length limit."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """No answer; the reason is for the server's operator, since it may name the model."""

    reason: str


# Given a question, it reports its text as it grows and returns the whole answer; it ends early once the event is set.
Ask = Callable[[Question, Say, threading.Event], Said | Failed]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """The answers of one responses.json."""

    path: Path
    questions: list[Question]
    answers: dict[int | str, Said]

    def ask(self, question: Question, say: Say, stop: threading.Event) -> Said:
        return self.answers[question.item]


def read_recording(path: Path) -> Recording:
    """Raises UserError when the file is not a list of answers."""
    questions, answers = [], dict[int | str, Said]()
    for each in read_responses(path):
        system: Message = {"role": "system", "content": each.system_prompt or ""}
        asked: Message = {"role": "user", "content": each.instruction, "input": each.input}
        messages = (*([system] if each.system_prompt else []), *each.history, asked)
        questions.append(Question(row_id=each.row_id, messages=messages, reference=each.output))
        answers[each.row_id] = Said(text=each.model_response, cut=each.finish_reason == "length")
    return Recording(path=path, questions=questions, answers=answers)


def common_questions(recordings: Mapping[str, Recording]) -> list[Question]:
    """The questions of all recordings, each once. Raises UserError when two ask different things under one row id."""
    found: dict[int | str, tuple[str, Question]] = {}
    for name, recording in recordings.items():
        for question in recording.questions:
            first, earlier = found.setdefault(question.item, (name, question))
            if earlier.text != question.text:
                raise UserError(
                    f"responses: row {question.item} is {sha256(earlier.text)[:12]} in {recordings[first].path} and "
                    f"{sha256(question.text)[:12]} in {recording.path} (SHA-256 of the question); these files answer "
                    "different data"
                )
    return [question for _, question in found.values()]


def refuse_other_answers(votes: Sequence[Vote], recordings: Mapping[str, Recording], path: Path) -> None:
    """Votes that were given to other answers under the same names would mix two models' ratings."""
    for vote in votes:
        sides: tuple[tuple[Name, str], ...] = (("a", vote.a), ("b", vote.b))
        for side, name in sides:
            if name not in recordings or vote.responses_sha256 is None or vote.row_id is None:
                continue
            answer = recordings[name].answers.get(vote.row_id)
            if answer is not None and sha256(answer.text) != vote.responses_sha256[side]:
                raise UserError(
                    f"votes: {path} has a vote on row {vote.row_id} for another answer of {name} than the one in "
                    f"{recordings[name].path}; choose another votes file, or give the new answers another name"
                )


def recorded(left: Ask, right: Ask, question: Question) -> tuple[Said | Failed, Said | Failed]:
    """Both answers at once, from files."""
    stop = threading.Event()
    return left(question, lambda text: None, stop), right(question, lambda text: None, stop)


def together(left: Ask, right: Ask, question: Question) -> Iterator[tuple[Said | Failed, Said | Failed, bool]]:
    """Both answers as they grow, and whether they are whole. Closing the iterator stops the models."""
    stop = threading.Event()
    news: queue.SimpleQueue[tuple[int, Said | Failed] | None] = queue.SimpleQueue()

    def run(side: int, ask: Ask) -> Said | Failed:
        try:
            return ask(question, lambda text: news.put((side, Said(text=text))), stop)
        finally:
            news.put(None)

    now: list[Said | Failed] = [Said(text=""), Said(text="")]
    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(run, side, ask) for side, ask in enumerate((left, right))]
        try:
            running = 2
            while running:
                item = news.get()
                if item is None:
                    running -= 1
                else:
                    now[item[0]] = item[1]
                    if news.empty():  # the page need not see every token
                        yield now[0], now[1], False
        finally:
            stop.set()
        yield futures[0].result(), futures[1].result(), True
