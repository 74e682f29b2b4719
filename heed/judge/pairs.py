"""Two answers to one row, compared in both orders: a judge that changes its mind with the order counts as a tie."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from heed.judge.asking import Asker, Judged, request_key
from heed.judge.controls import WORTHLESS, Control
from heed.judge.parsing import Verdict
from heed.judge.prompts import JudgePrompt, Question
from heed.judge.scores import MOST_FAILURES
from heed.judge.verdicts import JudgedAnswer, PairVerdict, Side, how_it_came
from heed.measure.intervals import mean_estimate

WORTH: dict[Side, float] = {"a": 0.0, "tie": 0.5, "b": 1.0}


def pair_up(ours: Sequence[JudgedAnswer], theirs: Sequence[JudgedAnswer]) -> list[tuple[JudgedAnswer, JudgedAnswer]]:
    """(a, b) for every row that both have answered; b is the one whose wins are counted."""
    by_row = {item.row_id: item for item in theirs}
    return [(by_row[item.row_id], item) for item in ours if item.row_id in by_row]


def control_pairs(controls: Sequence[Control]) -> list[tuple[JudgedAnswer, JudgedAnswer]]:
    """Each worthless answer as a, the reference as b."""
    references = {
        each.item.row_id: replace(each.item, name="reference") for each in controls if each.kind == "reference"
    }
    return [
        (replace(each.item, name=each.kind), references[each.item.row_id])
        for each in controls
        if each.kind in WORTHLESS
    ]


def judge_pairs(
    pairs: Sequence[tuple[JudgedAnswer, JudgedAnswer]],
    controls: Sequence[Control],
    prompt: JudgePrompt,
    asker: Asker,
    *,
    on_done: Callable[[], object] = lambda: None,
) -> list[PairVerdict]:
    """Two verdicts for every pair, a first and then b first; the controls come before the others.

    Equal answers are a tie, and nobody is asked.
    """
    compared: list[tuple[JudgedAnswer, JudgedAnswer, str | None]] = [(a, b, a.name) for a, b in control_pairs(controls)]
    compared += [(a, b, None) for a, b in pairs]
    orders: tuple[Literal["a", "b"], ...] = ("a", "b")
    shown = [(a, b, control, first) for a, b, control in compared for first in orders]
    questions = [in_order(prompt, a, b, first) for a, b, _, first in shown]
    different = [index for index, (a, b, _, _) in enumerate(shown) if not same(a, b)]
    asked = dict(zip(different, asker.ask_all([questions[index] for index in different], on_done=on_done), strict=True))
    return [
        PairVerdict(
            judge=asker.judge,
            prompt=prompt.name,
            a=a.name,
            b=b.name,
            row_id=a.row_id,
            control=control,
            first=first,
            winner=side(given.verdict, first),
            **how_it_came(given),
        )
        for index, (a, b, control, first) in enumerate(shown)
        for given in [asked.get(index) or tied(questions[index])]
    ]


def in_order(prompt: JudgePrompt, a: JudgedAnswer, b: JudgedAnswer, first: Literal["a", "b"]) -> Question:
    one, other = (a, b) if first == "a" else (b, a)
    return prompt.ask({**a.asked, "first": one.model_response, "second": other.model_response})


def same(a: JudgedAnswer, b: JudgedAnswer) -> bool:
    return a.model_response.strip() == b.model_response.strip()


def tied(question: Question) -> Judged:
    verdict = Verdict(value="tie", reason="both answers are the same text", how="identical")
    return Judged(verdict=verdict, reply=None, key=request_key("identical", dict(question.texts)))


def side(verdict: Verdict, first: Literal["a", "b"]) -> Side | None:
    """A is the one shown first."""
    second: Literal["a", "b"] = "b" if first == "a" else "a"
    sides: dict[Any, Side] = {"A": first, "B": second, "tie": "tie"}
    return sides.get(verdict.value)


def outcome(one: PairVerdict, other: PairVerdict) -> Side | None:
    """Of both orders: their winner if they agree, a tie if they do not, None if either has failed."""
    if one.winner is None or other.winner is None:
        return None
    return one.winner if one.winner == other.winner else "tie"


def both_orders(verdicts: Sequence[PairVerdict]) -> list[tuple[PairVerdict, PairVerdict]]:
    return list(zip(verdicts[::2], verdicts[1::2], strict=True))


def pair_summary(verdicts: Sequence[PairVerdict]) -> dict[str, Any]:
    """Wins, ties and losses of b; a tie counts half. Withheld when more than 5 % of the pairs have failed.

    `consistency` is the share of pairs with the same verdict in both orders; `first_position_rate` the share of wins
    that went to the answer shown first (0.5 is fair).
    """
    pairs = both_orders(verdicts)
    outcomes = [outcome(one, other) for one, other in pairs]
    counts = Counter(outcomes)
    judged = [each for each in outcomes if each is not None]
    asked = [(one, other) for one, other in pairs if one.winner and other.winner and one.how != "identical"]
    decided = [verdict for verdict in verdicts if verdict.winner in ("a", "b")]
    failures = Counter(verdict.failure for verdict in verdicts if verdict.winner is None)
    rate = counts[None] / len(pairs)
    withheld = rate > MOST_FAILURES
    estimate = mean_estimate([WORTH[each] for each in judged]) if judged and not withheld else None
    return {
        "wins": counts["b"],
        "ties": counts["tie"],
        "losses": counts["a"],
        "failures": counts[None],
        "failure_reasons": dict(failures),
        "failure_rate": rate,
        "n": len(judged),
        "n_full": len(pairs),
        "identical": sum(one.how == "identical" for one, _ in pairs),
        "withheld": withheld,
        "win_rate": estimate.value if estimate else None,
        "ci95": estimate.ci95 if estimate else None,
        "consistency": share([one.winner == other.winner for one, other in asked]),
        "first_position_rate": share([verdict.winner == verdict.first for verdict in decided]),
    }


def share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None
