"""From votes to pairs: which of two answers was preferred, as TRL's preference trainers read it.

People decide where a person has voted; judges decide the rest. Of several votes on the same two answers the majority
counts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heed.arena.contestants import Recording
from heed.arena.matches import Question
from heed.arena.votes import Vote
from heed.data.records import Message
from heed.errors import UserError
from heed.files import run_folder

HELD_OUT = ("test", "validation")
Texts = tuple[str, str]
"""The two answers in alphabetical order: equal texts are one pair, whoever wrote them."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """`pairs` are lines for TRL; `left_out` counts votes and questions without a pair, by reason."""

    pairs: list[dict[str, Any]]
    left_out: dict[str, int]
    contradicted: int
    """Pairs that some votes were against and the majority for."""


def make_pairs(votes: Sequence[Vote], recordings: Mapping[str, Recording]) -> Pairs:
    """`recordings` are the answers that recorded votes were about, by the models' names."""
    left_out: Counter[str] = Counter()
    asked: dict[tuple[str, Texts], list[tuple[Vote, str, str]]] = {}
    questions: dict[str, Question] = {}
    for vote in votes:
        if vote.preferred is None:
            left_out["a tie" if vote.winner == "tie" else "both answers bad"] += 1
            continue
        found = seen_by(vote, recordings)
        if isinstance(found, str):
            left_out[found] += 1
            continue
        question, chosen, rejected = found
        if chosen.strip() == rejected.strip():
            left_out["the answers are equal"] += 1
            continue
        questions[question.text] = question
        first, second = sorted((chosen, rejected))
        asked.setdefault((question.text, (first, second)), []).append((vote, chosen, rejected))
    pairs, contradicted = [], 0
    for (text, _), cast in asked.items():
        by_people = [each for each in cast if not each[0].by_judge]
        left_out["a person has decided"] += len(cast) - len(by_people) if by_people else 0
        deciding = by_people or cast
        [(chosen, most), *others] = Counter(each[1] for each in deciding).most_common()
        if others and others[0][1] == most:
            left_out["as many votes for as against"] += len(deciding)
            continue
        contradicted += bool(others)
        pairs.append(pair(questions[text], [each for each in deciding if each[1] == chosen]))
    return Pairs(pairs=pairs, left_out={reason: n for reason, n in left_out.items() if n}, contradicted=contradicted)


def seen_by(vote: Vote, recordings: Mapping[str, Recording]) -> tuple[Question, str, str] | str:
    """The question, the answer that won and the one that lost; or why that is not known."""
    texts = answers(vote, recordings)
    if isinstance(texts, str):
        return texts
    asked = [each for name in (vote.a, vote.b) if name in recordings for each in recordings[name].questions]
    question = next((each for each in asked if vote.row_id is not None and each.row_id == vote.row_id), None)
    if question is None:  # it was asked live
        question = Question(row_id=vote.row_id, messages=({"role": "user", "content": vote.prompt or ""},))
    a, b = texts
    return (question, a, b) if vote.winner == "a" else (question, b, a)


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


def pair(question: Question, votes: Sequence[tuple[Vote, str, str]]) -> dict[str, Any]:
    """A line of TRL's conversational format, and who preferred what when."""
    vote, chosen, rejected = votes[0]
    winner, loser = (vote.a, vote.b) if vote.winner == "a" else (vote.b, vote.a)
    return {
        "prompt": [turn(message) for message in question.messages],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "row_id": question.row_id,
        "models": {"chosen": winner, "rejected": loser},
        "votes": [{"voter": each.voter, "time": each.time} for each, _, _ in votes],
    }


def turn(message: Message) -> dict[str, str]:
    """Instruction and input stay separate, so that a prompt can show them as before."""
    return {name: str(value) for name, value in message.items() if value}


def refuse_held_out(pairs: Sequence[Mapping[str, Any]], run: Path | None, allowed: Sequence[str]) -> None:
    """Raises UserError for pairs on rows that the run keeps for its evaluation, unless their split is allowed."""
    path = run / run_folder.SPLITS_FILE if run is not None else None
    if path is None or not path.is_file():
        return
    splits = run_folder.read_json(path)
    for name in HELD_OUT:
        rows = set(splits.get(name, []))
        count = sum(each["row_id"] in rows for each in pairs)
        if count and name not in allowed:
            raise UserError(
                f"votes: {count} of {len(pairs)} pairs are about {name} rows of {run}; a model that is tuned on them "
                f"cannot be evaluated on them. Let people vote on answers to training rows (eval_responses.py --split "
                f"train --output_dir FOLDER) or typed questions, or allow these by name: --allow_held_out {name}"
            )
