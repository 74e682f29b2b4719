"""Votes: who preferred which of two answers, one JSON line each, in a file that only grows.

A line is on the disk before the voter is told so. Any number of sessions and servers may write to one file. What a
killed server left of a line is never mistaken for a vote, nor glued to the next one.
"""

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from heed.errors import UserError
from heed.files import run_folder
from heed.files.lines import line_of, said_of, scan
from heed.files.lock import wait_for_lock
from heed.saying import writable

Name = Literal["a", "b"]
Winner = Literal["a", "b", "tie", "both_bad"]
JUDGE = "judge:"
MAX_NAME = 40


class Key(NamedTuple):
    """What a vote is about: a row or a typed question, and two models in alphabetical order."""

    item: int | str
    """A row's id, or the SHA-256 of a typed question."""
    a: str
    b: str


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One line of a votes file. `a` and `b` are names of models; nothing depends on which is which."""

    time: str | None
    """None for a judge's verdict, whose file does not tell."""
    voter: str
    """A person's name, or "judge:" and the judge's."""
    a: str
    b: str
    winner: Winner
    first: Name | None
    """Whose answer was on the left; None for a judge, who sees both orders."""
    row_id: int | None = None
    """None for a question that was typed."""
    prompt: str | None = None
    prompt_sha256: str | None = None
    responses_sha256: Mapping[Name, str] | None = None
    """Of the two answers that were seen, as {"a": ..., "b": ...}."""
    responses: Mapping[Name, str] | None = None
    """The two answers of models that were asked live; recorded ones are in their responses.json."""
    note: str = ""
    seconds: float | None = None
    """From the answers being there to the vote."""

    @property
    def key(self) -> Key:
        item = self.prompt_sha256 if self.row_id is None else self.row_id
        assert item is not None, "a vote is about a row or a question"
        a, b = sorted((self.a, self.b))
        return Key(item, a, b)

    @property
    def preferred(self) -> str | None:
        """The name of the model that won; None when neither did."""
        return {"a": self.a, "b": self.b}.get(self.winner)

    @property
    def by_judge(self) -> bool:
        return self.voter.startswith(JUDGE)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def voter_name(words: str) -> str:
    """A person's name as it is in the file: one line, not too long; empty for a name that a judge could have."""
    name = writable(" ".join(words.split()))[:MAX_NAME]
    return "" if name.startswith(JUDGE) else name


NAMES = tuple(field.name for field in fields(Vote))
REQUIRED = ("voter", "a", "b", "winner")
TYPES: dict[str, Any] = dict.fromkeys(NAMES, str) | {
    "row_id": int,
    "seconds": (int, float),
    "responses_sha256": dict,
    "responses": dict,
}
MAY_BE_NULL = set(NAMES) - {*REQUIRED, "note"}


def read_vote(value: dict[str, Any]) -> Vote:
    """Raises ValueError for an object that is not a vote."""
    if not set(REQUIRED) <= set(value) <= set(NAMES):
        raise ValueError(f"not a vote; it needs {', '.join(REQUIRED)}, and may have {', '.join(NAMES)}")
    for name, each in value.items():
        if not (isinstance(each, TYPES[name]) or (each is None and name in MAY_BE_NULL)):
            raise ValueError(f"{name}: {each!r} has the wrong type for a vote")
    if value["winner"] not in get_args(Winner):
        raise ValueError(f"winner: {value['winner']!r} is not one of {', '.join(get_args(Winner))}")
    if value["a"] == value["b"]:
        raise ValueError(f"{value['a']!r} is compared with itself")
    if value.get("row_id") is None and value.get("prompt_sha256") is None:
        raise ValueError("neither row_id nor prompt_sha256 says what the vote is about")
    given: dict[str, Any] = {"time": None, "first": None} | value
    return Vote(**given)


class VoteFile:
    """The votes of one file, read as it grows. Safe to use from many threads, beside other processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._damaged: dict[int, str] = {}
        self._votes: list[Vote] = []
        self._voted: set[tuple[str, Key]] = set()
        self._bytes = 0
        self._lines = 0
        self._lock = threading.Lock()

    def read(self) -> list[Vote]:
        """All votes so far; `damage` says what is not one."""
        with self._lock:
            if self.path.is_file():
                with self.path.open("rb") as file:
                    self._catch_up(file)
            return list(self._votes)

    def add(self, vote: Vote) -> bool:
        """Write the vote through to the disk; False when this voter has voted on this pair before.

        Raises UserError when the file cannot be written.
        """
        try:
            with self._lock, open(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644), "r+b") as file:
                wait_for_lock(file.fileno())  # let go when the file is closed
                self._catch_up(file)  # other servers may have written
                if (vote.voter, vote.key) in self._voted:
                    return False
                torn = self._bytes < file.seek(0, os.SEEK_END)
                file.write((b"\n" if torn else b"") + line_of(asdict(vote)))
                file.flush()
                os.fsync(file.fileno())
                self._catch_up(file)
        except OSError as error:
            raise UserError(f"votes: {self.path} cannot be written ({error.strerror})") from error
        return True

    def voted(self, voter: str, key: Key) -> bool:
        return (voter, key) in self._voted

    def _catch_up(self, file: Any) -> None:
        """Read the lines that were finished since the last time."""
        file.seek(self._bytes)
        data = file.read()
        finished = data[: data.rfind(b"\n") + 1]
        kept = scan(self.path, finished, read_vote, after=self._lines)
        self._bytes += len(finished)
        self._lines += finished.count(b"\n")
        self._damaged |= kept.damaged | kept.torn
        self._votes += kept.values
        self._voted |= {(vote.voter, vote.key) for vote in kept.values}

    @property
    def damage(self) -> str | None:
        """What to report of lines that are not votes, including a last one that was never finished."""
        with self._lock:
            size = self.path.stat().st_size if self.path.is_file() else 0
            return said_of(
                self.path, self._damaged | ({self._lines + 1: "cut off in the middle"} if size > self._bytes else {})
            )


def check_writable(path: Path) -> None:
    """Make the file before anyone votes. Raises UserError when that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
    except OSError as error:
        raise UserError(f"votes: {path} cannot be written ({error.strerror})") from error


class Verdicts(NamedTuple):
    votes: list[Vote]
    left_out: dict[str, int]
    """Pairs without a vote, by reason."""


def verdict_votes(path: Path) -> Verdicts:
    """The pair verdicts of a judge.jsonl as votes. Two orders that disagree are a tie.

    Controls are not votes. Of a pair judged twice in the same order, the later verdict counts. Raises UserError for a
    damaged file.
    """
    if not path.is_file():
        raise UserError(f"judge: {path}: no such file")
    orders: dict[tuple[Any, ...], dict[str, str | None]] = {}
    try:
        for line in run_folder.read_lines(path):
            if line["kind"] == "pair" and line.get("control") is None:
                about = (line["judge"], line["prompt"], line["a"], line["b"], line["row_id"])
                orders.setdefault(about, {})[line["first"]] = line["winner"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: not the verdicts of a judge ({error!r})") from error
    prompts = Counter(judge for judge, _ in {about[:2] for about in orders})
    votes, left_out = [], Counter[str]()
    for (judge, prompt, a, b, row_id), winners in orders.items():
        if set(winners) != {"a", "b"}:
            left_out["judged in one order only"] += 1
        elif None in winners.values():
            left_out["a verdict failed"] += 1
        else:
            one, other = winners.values()
            voter = f"{JUDGE}{judge}" if prompts[judge] == 1 else f"{JUDGE}{judge} ({prompt})"
            winner: Any = one if one == other else "tie"
            votes.append(Vote(time=None, voter=voter, a=a, b=b, winner=winner, first=None, row_id=row_id))
    return Verdicts(votes, dict(left_out))


ARENA_RANK = {"a": "model_a", "b": "model_b", "tie": "tie", "both_bad": "both_bad"}


def export_csv(path: Path, votes: Iterable[Vote]) -> None:
    """The votes in the columns that arena-rank, the method of the public leaderboard, reads."""
    import csv

    with run_folder.whole_file(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["model_a", "model_b", "winner"])
        writer.writerows((vote.a, vote.b, ARENA_RANK[vote.winner]) for vote in votes)
