"""Who is shown which two answers next: pairs with the fewest votes first, and none twice to the same voter."""

import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from heed.arena.votes import Key, Name, Vote, VoteFile, Winner, sha256
from heed.data.records import Message

Side = Literal["left", "right", "tie", "both_bad"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What two models are asked: a row of the data, or what someone typed."""

    row_id: int | None
    messages: tuple[Message, ...]
    """Up to the user's last turn."""
    reference: str = ""
    """The answer that the row brings."""

    @property
    def text(self) -> str:
        parts = [part for message in self.messages for part in (message["content"], message.get("input", ""))]
        return "\n\n".join(part for part in parts if part)

    @property
    def item(self) -> int | str:
        return sha256(self.text) if self.row_id is None else self.row_id


@dataclass(frozen=True, kw_only=True)
class Match:
    """A question and the two models whose answers are shown. Their names stay on the server until the vote."""

    question: Question
    left: str
    right: str

    @property
    def key(self) -> Key:
        a, b = sorted((self.left, self.right))
        return Key(self.question.item, a, b)


class Matches:
    """The pairs that can be voted on, shared by all sessions of a server."""

    def __init__(
        self, questions: Sequence[Question], pairs: Sequence[Key], votes: VoteFile, *, seed: int | None = None
    ):
        """`pairs` are those of the rows; `seed` makes the order repeatable."""
        self._questions = {question.item: question for question in questions}
        self._pairs = pairs
        self._votes = votes
        self._random = random.Random(seed)
        self._shown: dict[str, Match] = {}
        self._skipped: dict[str, list[Key]] = {}
        self._lock = threading.Lock()

    def next(self, voter: str) -> Match | None:
        """The pair this voter already has on the screen, otherwise a new one; None when the voter has seen them all.

        What others have on their screens counts as voted on, so that two people who come at once get different pairs.
        """
        with self._lock:
            counts = self._counts(voter)
            shown = self._shown.get(voter)
            if shown is not None and shown.question.row_id is not None and not self._votes.voted(voter, shown.key):
                return shown  # a reload must not swap the sides
            skipped = self._skipped.get(voter, [])
            left_over = [key for key in self._pairs if not self._votes.voted(voter, key)]
            if not left_over:
                return None
            rank = {key: place for place, key in enumerate(skipped, 1)}
            fewest = min((rank.get(key, 0), counts[key]) for key in left_over)
            key = self._random.choice([key for key in left_over if (rank.get(key, 0), counts[key]) == fewest])
            return self._show(voter, self._questions[key.item], key)

    def skip(self, voter: str, match: Match) -> None:
        """Put a pair after all others of this voter."""
        with self._lock:
            skipped = self._skipped.setdefault(voter, [])
            if match.key in skipped:
                skipped.remove(match.key)
            skipped.append(match.key)
            self._shown.pop(voter, None)

    def typed(self, voter: str, text: str, models: Sequence[str]) -> Match | None:
        """A match on the voter's own question; None when the voter has voted on it with every pair of models."""
        question = Question(row_id=None, messages=({"role": "user", "content": text},))
        with self._lock:
            counts = self._counts(voter)
            between = Counter[tuple[str, str]]()
            for key, count in counts.items():
                between[key.a, key.b] += count
            names = sorted(models)
            keys = [Key(question.item, a, b) for place, a in enumerate(names) for b in names[place + 1 :]]
            keys = [key for key in keys if not self._votes.voted(voter, key)]
            if not keys:
                return None
            fewest = min(between[key.a, key.b] for key in keys)
            return self._show(
                voter, question, self._random.choice([key for key in keys if between[key.a, key.b] == fewest])
            )

    def progress(self, voter: str) -> tuple[int, int]:
        """How many of the pairs of rows this voter has voted on, and how many there are."""
        return sum(self._votes.voted(voter, key) for key in self._pairs), len(self._pairs)

    def _counts(self, voter: str) -> Counter[Key]:
        """People's votes on each pair, with what other people have on their screens."""
        counts = Counter(vote.key for vote in self._votes.read() if not vote.by_judge)
        for other, match in self._shown.items():
            if other != voter and not self._votes.voted(other, match.key):
                counts[match.key] += 1
        return counts

    def _show(self, voter: str, question: Question, key: Key) -> Match:
        left, right = self._random.sample((key.a, key.b), 2)
        match = Match(question=question, left=left, right=right)
        self._shown[voter] = match
        return match


def pairs_of(answered: dict[str, set[int | str]]) -> list[Key]:
    """Every two models on every question that both answered. `answered` has the items of each model."""
    names = sorted(answered)
    return sorted(
        Key(item, a, b)
        for place, a in enumerate(names)
        for b in names[place + 1 :]
        for item in answered[a] & answered[b]
    )


def vote_of(
    match: Match, *, voter: str, side: Side, left: str, right: str, live: bool, note: str, time: str, seconds: float
) -> Vote:
    """The line that a vote for a side becomes; `left` and `right` are the answers that were seen."""
    a, b = match.key.a, match.key.b
    sides: tuple[Name, Name] = ("a", "b") if match.left == a else ("b", "a")
    first, second = sides
    answers: dict[Name, str] = {first: left, second: right}
    winners: dict[Side, Winner] = {"left": first, "right": second, "tie": "tie", "both_bad": "both_bad"}
    return Vote(
        time=time,
        voter=voter,
        a=a,
        b=b,
        winner=winners[side],
        first=first,
        row_id=match.question.row_id,
        prompt=match.question.text,
        prompt_sha256=sha256(match.question.text),
        responses_sha256={name: sha256(answers[name]) for name in sorted(answers)},
        responses={name: answers[name] for name in sorted(answers)} if live else None,
        note=note,
        seconds=round(seconds, 2),
    )
