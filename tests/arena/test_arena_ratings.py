import math
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from heed.arena.ratings import agreements, as_text, leaderboards, rate
from heed.arena.votes import Vote, Winner

VOTE = Vote(time=None, voter="Ada", a="base", b="tuned", winner="b", first="a", row_id=0)


def votes(a: str, b: str, *, wins: int = 0, losses: int = 0, ties: int = 0, both_bad: int = 0) -> list[Vote]:
    winners: list[Winner] = [*["a"] * wins, *["b"] * losses, *["tie"] * ties, *["both_bad"] * both_bad]  # type: ignore[list-item]
    return [replace(VOTE, a=a, b=b, winner=winner, row_id=number) for number, winner in enumerate(winners)]


def simulated(strengths: Mapping[str, float], count: int, rng: np.random.Generator, ties: float = 0.1) -> list[Vote]:
    found = []
    for row in range(count):
        a, b = rng.choice(list(strengths), 2, replace=False)
        draw, win = rng.random(2)
        winner: Winner = (
            "tie" if draw < ties else "a" if win < 1 / (1 + 10 ** ((strengths[b] - strengths[a]) / 400)) else "b"
        )
        found.append(replace(VOTE, a=str(a), b=str(b), winner=winner, row_id=row))
    return found


def test_two_models_differ_by_the_logarithm_of_their_odds() -> None:
    board = rate(votes("base", "tuned", wins=9, losses=29, ties=1, both_bad=0))

    # with the one tie that every pair gets: 30 points against 10, 400 log10(3) = 190.8
    assert [(each.model, round(each.rating, 1)) for each in board.standings] == [("tuned", 1095.4), ("base", 904.6)]
    assert [each.rank for each in board.standings] == [1, 2]
    [pair] = board.pairs
    assert (pair.wins, pair.losses, pair.ties, pair.both_bad, pair.score) == (9, 29, 1, 0, 9.5)


def test_both_bad_counts_as_a_tie_and_separately() -> None:
    bad, tied = rate(votes("a", "b", wins=3, both_bad=2)), rate(votes("a", "b", wins=3, ties=2))

    assert [each.rating for each in bad.standings] == [each.rating for each in tied.standings]
    assert (bad.standings[0].ties, bad.standings[0].both_bad) == (0, 2)


def test_a_model_that_never_lost_has_a_finite_rating_and_an_interval_with_width() -> None:
    best, worst = rate(votes("a", "b", wins=10)).standings

    assert best.rating - worst.rating == pytest.approx(400 * math.log10(10.5 / 0.5))
    # Where the likelihood 10.5 log s + 0.5 log(1 - s) of the gap, s = 1 / (1 + 10^(-gap / 400)), has fallen by 1.92.
    assert (best.ci95, worst.ci95) == (pytest.approx((1086.6, 1686.3), abs=0.1), pytest.approx((313.7, 913.4), abs=0.1))


def test_ratings_are_the_most_likely_strengths() -> None:
    minimize = pytest.importorskip("scipy.optimize").minimize
    cast = simulated({"a": 0, "b": 100, "c": 250, "d": 300}, 300, np.random.default_rng(1))
    board = rate(cast)
    names = sorted(each.model for each in board.standings)

    def unlikelihood(strengths: np.ndarray) -> float:
        at = dict(zip(names, strengths, strict=True))
        total = 0.0
        for pair in board.pairs:
            points = pair.wins + (pair.ties + pair.both_bad + 1) / 2  # one more tie
            chance = 1 / (1 + 10 ** ((at[pair.b] - at[pair.a]) / 400))
            total -= points * math.log(chance) + (pair.votes + 1 - points) * math.log(1 - chance)
        return total

    found = minimize(unlikelihood, np.zeros(4), method="BFGS").x
    expected = dict(zip(names, 1000 + found - found.mean(), strict=True))
    assert {each.model: each.rating for each in board.standings} == pytest.approx(expected, abs=0.1)


def test_known_strengths_are_recovered_in_order_and_the_intervals_cover_them() -> None:
    strengths = {"best": 1200.0, "good": 1070.0, "fair": 930.0, "poor": 800.0}
    rng = np.random.default_rng(0)
    covered, in_order, runs = 0, 0, 6
    for _ in range(runs):
        standings = rate(simulated(strengths, 400, rng, ties=0.0)).standings
        in_order += [each.model for each in standings] == list(strengths)
        covered += sum(each.ci95[0] <= strengths[each.model] <= each.ci95[1] for each in standings)

    assert in_order == runs
    assert covered >= 22  # of 24


def test_models_that_never_met_are_not_compared() -> None:
    board = rate([*votes("a", "b", wins=3, losses=1), *votes("b", "c", wins=2), *votes("x", "y", losses=2)])

    assert [(each.model, each.group) for each in board.standings] == [("a", 1), ("b", 1), ("c", 1), ("y", 2), ("x", 2)]
    assert sum(each.rating for each in board.standings[3:]) == pytest.approx(2000)
    assert "never met" in as_text([board], [])


def test_a_win_rate_has_the_interval_of_a_share_and_one_vote_has_none() -> None:
    [pair] = rate(votes("a", "b", wins=8, losses=2)).pairs
    assert pair.win_rate_ci95 == pytest.approx((0.4439, 0.9748), abs=1e-4)  # Clopper and Pearson
    assert rate(votes("a", "b", wins=1)).pairs[0].win_rate_ci95 is None


def test_a_thousand_votes_on_fourteen_models_are_rated_at_once() -> None:
    cast = simulated({f"m{n}": 1000 + 60 * n for n in range(14)}, 1000, np.random.default_rng(0))
    began = time.perf_counter()
    rate(cast)
    assert time.perf_counter() - began < 1


@pytest.mark.slow
@pytest.mark.parametrize(("count", "gap"), [(10, 300), (20, 600), (60, 0), (200, 400)])
def test_intervals_of_ratings_cover_the_truth(count: int, gap: float) -> None:
    strengths = {"a": 1000 + gap / 2, "b": 1000 - gap / 2}
    rng = np.random.default_rng(0)
    boards = [rate(simulated(strengths, count, rng, ties=0.0)).standings for _ in range(400)]
    covered = [each.ci95[0] <= strengths[each.model] <= each.ci95[1] for board in boards for each in board]
    assert np.mean(covered) >= 0.93


def test_judges_do_not_outvote_people() -> None:
    judged = [replace(vote, voter="judge:llama3") for vote in votes("base", "tuned", wins=50)]
    boards = leaderboards([*judged, *votes("base", "tuned", losses=3)])

    assert [(board.who, board.votes, board.standings[0].model) for board in boards] == [
        ("people", 3, "tuned"),
        ("judge:llama3", 50, "base"),
    ]


def test_agreement_of_people_and_judges_covers_only_what_both_saw() -> None:
    ada = votes("base", "tuned", losses=3, ties=1)
    bob = [replace(vote, voter="Bob", a="tuned", b="base", winner="a") for vote in ada[:2]]  # the same, turned round
    judge = [replace(vote, voter="judge:llama3", winner="both_bad") for vote in ada[2:]]

    found = {(each.who, each.with_whom): (each.agreed, each.n) for each in agreements([*judge, *ada, *bob])}

    assert found == {("people", "people"): (2, 2), ("people", "judge:llama3"): (1, 2)}


def test_agreement_beyond_chance_is_krippendorffs() -> None:
    ada = votes("base", "tuned", wins=5, losses=5)
    same = [replace(vote, voter="judge:x") for vote in ada]
    turned = [replace(vote, voter="judge:x", winner="b" if vote.winner == "a" else "a") for vote in ada]

    assert agreements([*ada, *same])[0].krippendorff_alpha == 1.0
    assert agreements([*ada, *turned])[0].krippendorff_alpha == pytest.approx(-0.9)
    assert agreements([*ada[:5], *same[:5]])[0].krippendorff_alpha is None
