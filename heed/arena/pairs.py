"""From votes to pairs: which of two answers was preferred, as TRL's preference trainers read it.

People decide where a person has voted; judges decide the rest. Of several votes on the same two answers the majority
counts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heed.arena.contestants import Recording, common_questions
from heed.arena.matches import Question
from heed.arena.votes import Vote
from heed.data.records import Message

Texts = tuple[str, str]
"""The two answers in alphabetical order: equal texts are one pair, whoever wrote them."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """`pairs` are lines for TRL; `left_out` counts votes and questions without a pair, by reason."""

    pairs: list[dict[str, Any]]
    left_out: dict[str, int]
    contradicted: int
    """Pairs that some votes were against and the majority for."""


@dataclass(frozen=True, kw_only=True)
class Preference:
    """A vote with what was voted on."""

    vote: Vote
    question: Question
    chosen: str
    rejected: str


def make_pairs(votes: Sequence[Vote], recordings: Mapping[str, Recording]) -> Pairs:
    """`recordings` are the answers that recorded votes were about, by the models' names.

    Raises UserError where two of them answer different data.
    """
    left_out: Counter[str] = Counter()
    asked: dict[tuple[str, Texts], list[Preference]] = {}
    recorded = {question.item: question for question in common_questions(recordings)}
    for vote in votes:
        found = preference(vote, recordings, recorded)
        if isinstance(found, str):
            left_out[found] += 1
        else:
            first, second = sorted((found.chosen, found.rejected))
            asked.setdefault((found.question.text, (first, second)), []).append(found)
    pairs, contradicted = [], 0
    for cast in asked.values():
        by_people = [each for each in cast if not each.vote.by_judge]
        left_out["a person has decided"] += len(cast) - len(by_people) if by_people else 0
        deciding = by_people or cast
        [(chosen, most), *others] = Counter(each.chosen for each in deciding).most_common()
        if others and others[0][1] == most:
            left_out["as many votes for as against"] += len(deciding)
            continue
        contradicted += bool(others)
        pairs.append(pair([each for each in deciding if each.chosen == chosen]))
    return Pairs(pairs=pairs, left_out={reason: n for reason, n in left_out.items() if n}, contradicted=contradicted)


def preference(
    vote: Vote, recordings: Mapping[str, Recording], recorded: Mapping[int | str, Question]
) -> Preference | str:
    """What a vote prefers; or why it gives no pair. `recorded` are the questions of the recordings."""
    if vote.preferred is None:
        return "a tie" if vote.winner == "tie" else "both answers bad"
    texts = answers(vote, recordings)
    if isinstance(texts, str):
        return texts
    chosen, rejected = texts if vote.winner == "a" else texts[::-1]
    if chosen.strip() == rejected.strip():
        return "the answers are equal"
    live = Question(row_id=vote.row_id, messages=({"role": "user", "content": vote.prompt or ""},))
    question = recorded.get(vote.key.item, live)
    return Preference(vote=vote, question=question, chosen=chosen, rejected=rejected)


def answers(vote: Vote, recordings: Mapping[str, Recording]) -> tuple[str, str] | str:
    """Those of a and b; or why they are not known."""
    if vote.responses is not None:
        return vote.responses["a"], vote.responses["b"]
    if vote.a not in recordings or vote.b not in recordings:
        return "the answers are not given: name the responses of its models"
    found = [recordings[name].answers.get(vote.key.item) for name in (vote.a, vote.b)]
    if found[0] is None or found[1] is None:
        return "its row is not in the responses"
    return found[0].text, found[1].text


def pair(preferences: Sequence[Preference]) -> dict[str, Any]:
    """A line of TRL's conversational format, and who preferred what when."""
    first = preferences[0]
    winner, loser = (first.vote.a, first.vote.b) if first.vote.winner == "a" else (first.vote.b, first.vote.a)
    return {
        "prompt": [turn(message) for message in first.question.messages],
        "chosen": [{"role": "assistant", "content": first.chosen}],
        "rejected": [{"role": "assistant", "content": first.rejected}],
        "row_id": first.question.row_id,
        "models": {"chosen": winner, "rejected": loser},
        "votes": [{"voter": each.vote.voter, "time": each.vote.time} for each in preferences],
    }


def turn(message: Message) -> dict[str, Any]:
    """Instruction and input stay separate, so that a prompt can show them as before."""
    return {name: value for name, value in message.items() if value}
