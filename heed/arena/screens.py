"""What a voter's screen shows, step by step; the page only lays it out."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from heed.arena import cards
from heed.arena.contestants import Ask, Failed, Said, recorded, together
from heed.arena.matches import Match, Matches, Side, vote_of
from heed.arena.ratings import agreements, leaderboards
from heed.arena.votes import Vote, VoteFile
from heed.files import run_folder
from heed.saying import writable

MAX_NOTE, MAX_QUESTION = 1000, 4000
STALE = "The server has been restarted, so nothing was counted; please reload this page."


@dataclass(frozen=True, kw_only=True)
class Arena:
    """All that the sessions of one server share."""

    contestants: Mapping[str, Ask]
    live: bool
    matches: Matches
    votes: VoteFile
    verdicts: Sequence[Vote]
    """Of judges, for the leaderboard."""
    has_rows: bool


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Two whole answers that wait for a vote. It stays on the server: it knows the names."""

    match: Match
    left: Said
    right: Said
    since: float


@dataclass(frozen=True, kw_only=True)
class Screen:
    """None leaves a part as it is."""

    progress: str
    shown: Shown | None = None
    question: str | None = None
    left: str | None = None
    right: str | None = None
    verdict: str = ""
    note: str | None = None
    may_skip: bool = False
    may_go_on: bool = False
    may_ask: bool = True

    @property
    def may_vote(self) -> bool:
        return self.shown is not None


def next_pair(arena: Arena, voter: str) -> Iterator[Screen]:
    """The voter's next pair of a row; what may be done instead where there is none."""
    if not voter:
        yield stale(arena)
        return
    match = arena.matches.next(voter) if arena.has_rows else None
    if match is not None:
        yield from play(arena, voter, match)
        return
    _, total = arena.matches.progress(voter)
    done = f"You have voted on all {total} pairs. Thank you." if total else ""
    asking = "Ask anything above; two models answer side by side." if arena.live else ""
    yield message(arena, voter, " ".join(part for part in (done, asking) if part))


def skip(arena: Arena, voter: str, shown: Shown | None) -> Iterator[Screen]:
    if shown is not None:
        arena.matches.skip(voter, shown.match)
    yield from next_pair(arena, voter)


def ask(arena: Arena, voter: str, words: str) -> Iterator[Screen]:
    """Two answers to the voter's own question."""
    words = writable(words.strip())[:MAX_QUESTION]
    if not voter or not words:
        yield from next_pair(arena, voter)
        return
    match = arena.matches.typed(voter, words, list(arena.contestants))
    if match is None:
        yield message(arena, voter, "You have voted on this question with every pair of models. Ask another one.")
        return
    yield from play(arena, voter, match)


def play(arena: Arena, voter: str, match: Match) -> Iterator[Screen]:
    """The answers to a question as they grow, and then a screen to vote on."""
    left, right = arena.contestants[match.left], arena.contestants[match.right]
    if not arena.live:
        yield whole(arena, voter, match, *recorded(left, right, match.question))
        return
    yield growing(arena, voter, match, Said(text=""), Said(text=""))
    for one, other, finished in together(left, right, match.question):
        yield (whole if finished else growing)(arena, voter, match, one, other)


def growing(arena: Arena, voter: str, match: Match, left: Said | Failed, right: Said | Failed) -> Screen:
    return Screen(
        progress=progress(arena, voter),
        question=cards.question_card(match.question),
        left=cards.answer_card("A", left, growing=True),
        right=cards.answer_card("B", right, growing=True),
        may_ask=False,  # two questions at once would write over each other
    )


def whole(arena: Arena, voter: str, match: Match, left: Said | Failed, right: Said | Failed) -> Screen:
    """Only two answers can be compared: where a model failed, there is nothing to vote on."""
    shown = None
    if isinstance(left, Said) and isinstance(right, Said):
        shown = Shown(match=match, left=left, right=right, since=time.monotonic())
    for name, answer in ((match.left, left), (match.right, right)):
        if isinstance(answer, Failed):
            print(f"{name} could not answer: {answer.reason}")
    return Screen(
        progress=progress(arena, voter),
        shown=shown,
        question=cards.question_card(match.question),
        left=cards.answer_card("A", left),
        right=cards.answer_card("B", right),
        may_skip=True,
    )


def vote(arena: Arena, voter: str, side: Side, shown: Shown | None, note: str) -> Screen:
    """Write the vote down, and then reveal the names."""
    if not voter or shown is None:
        return stale(arena)
    match = shown.match
    counted = arena.votes.add(
        vote_of(
            match,
            voter=voter,
            side=side,
            left=shown.left.text,
            right=shown.right.text,
            live=arena.live,
            note=writable(note.strip())[:MAX_NOTE],
            time=run_folder.now(),
            seconds=time.monotonic() - shown.since,
        )
    )
    return Screen(
        progress=progress(arena, voter),
        left=cards.answer_card("A", shown.left, name=match.left, won=counted and side == "left"),
        right=cards.answer_card("B", shown.right, name=match.right, won=counted and side == "right"),
        verdict=cards.revealed(match, side) if counted else cards.notice("You have voted on this pair before."),
        note="",
        may_go_on=True,
    )


def message(arena: Arena, voter: str, words: str) -> Screen:
    return Screen(progress=progress(arena, voter), question=cards.message_card(words), left="", right="")


def stale(arena: Arena) -> Screen:
    """For a page that is older than this server, whose names and pairs are gone."""
    return Screen(progress=progress(arena, ""), verdict=cards.notice(STALE))


def progress(arena: Arena, voter: str) -> str:
    votes = [vote for vote in arena.votes.read() if not vote.by_judge]
    done, total = arena.matches.progress(voter)
    return cards.progress(done, total, len(votes), len({vote.voter for vote in votes}))


def board(arena: Arena) -> str:
    votes = [*arena.votes.read(), *arena.verdicts]
    return cards.standings_card(leaderboards(votes), agreements(votes))
