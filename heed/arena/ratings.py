"""Ratings from votes: Bradley-Terry strengths on the Elo scale, win rates, and how far voters agree.

A tie counts half a win for each model, and so does "both bad", which is also counted separately. People and each judge
get separate leaderboards: mixing them would let a judge who answers everything outvote people.
"""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from heed.arena.votes import Key, Vote
from heed.measure.alpha import krippendorff_alpha
from heed.measure.intervals import mean_estimate
from heed.saying import count

PEOPLE = "people"
MEAN_RATING, SCALE = 1000.0, 400.0
Z95 = NormalDist().inv_cdf(0.975)
NEWTON_STEPS, CLOSE = 50, 1e-9


@dataclass(frozen=True, kw_only=True)
class Pair:
    """All votes between two models, from the side of `a`."""

    a: str
    b: str
    wins: int
    losses: int
    ties: int
    both_bad: int

    @property
    def votes(self) -> int:
        return self.wins + self.losses + self.ties + self.both_bad

    @property
    def score(self) -> float:
        """Wins, with half of what was undecided."""
        return self.wins + (self.ties + self.both_bad) / 2

    @property
    def win_rate(self) -> float:
        return self.score / self.votes

    @property
    def win_rate_ci95(self) -> tuple[float, float] | None:
        undecided = self.ties + self.both_bad
        return mean_estimate([1.0] * self.wins + [0.5] * undecided + [0.0] * self.losses).ci95

    def turned(self) -> "Pair":
        return Pair(a=self.b, b=self.a, wins=self.losses, losses=self.wins, ties=self.ties, both_bad=self.both_bad)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One model among those it can be compared with."""

    model: str
    rank: int
    """One more than the models whose whole interval is above this one's."""
    rating: float
    ci95: tuple[float, float]
    votes: int
    wins: int
    losses: int
    ties: int
    both_bad: int
    win_rate: float
    group: int
    """Models that never met, not even through others, are in different groups; each has a mean rating of 1000."""


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """What one kind of voter thinks: people, or one judge."""

    who: str
    votes: int
    voters: dict[str, int]
    standings: list[Standing]
    """Best first, group by group."""
    pairs: list[Pair]

    def between(self, model: str, other: str) -> Pair | None:
        """The votes between two models, from the side of the first."""
        for pair in self.pairs:
            if (pair.a, pair.b) == (model, other):
                return pair
            if (pair.a, pair.b) == (other, model):
                return pair.turned()
        return None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How often two voters who saw the same pair of answers voted alike; a tie and "both bad" are alike."""

    who: str
    with_whom: str
    n: int
    """Pairs of votes that could be compared."""
    agreed: int
    krippendorff_alpha: float | None
    """Agreement beyond chance, 1 at best; None when there is nothing to tell chance from."""

    @property
    def share(self) -> float:
        return self.agreed / self.n


def leaderboards(votes: Sequence[Vote]) -> list[Leaderboard]:
    """One for people and one for each judge, as far as they voted."""
    by_who: dict[str, list[Vote]] = {}
    for vote in sorted(votes, key=lambda vote: (vote.by_judge, vote.voter)):
        by_who.setdefault(who(vote), []).append(vote)
    return [rate(each, who=name) for name, each in by_who.items()]


def who(vote: Vote) -> str:
    return vote.voter if vote.by_judge else PEOPLE


def rate(votes: Sequence[Vote], *, who: str = PEOPLE) -> Leaderboard:
    """Ratings of the models of these votes, with 95 % intervals from the profile of their likelihood."""
    pairs = tally(votes)
    standings: list[Standing] = []
    for group, models in enumerate(groups(pairs), 1):
        inside = [pair for pair in pairs if pair.a in models]
        standings += stand(models, inside, group=group)
    return Leaderboard(
        who=who,
        votes=len(votes),
        voters=dict(Counter(vote.voter for vote in votes).most_common()),
        standings=standings,
        pairs=pairs,
    )


def tally(votes: Sequence[Vote]) -> list[Pair]:
    counts: dict[tuple[str, str], Counter[str]] = {}
    for vote in votes:
        a, b = sorted((vote.a, vote.b))
        outcome = {a: "wins", b: "losses"}[vote.preferred] if vote.preferred else vote.winner
        counts.setdefault((a, b), Counter())[outcome] += 1
    return [
        Pair(
            a=a,
            b=b,
            wins=count["wins"],
            losses=count["losses"],
            ties=count["tie"],
            both_bad=count["both_bad"],
        )
        for (a, b), count in sorted(counts.items())
    ]


def groups(pairs: Sequence[Pair]) -> list[list[str]]:
    """Models that are connected by votes, largest group first."""
    found: list[set[str]] = []
    for pair in pairs:
        joined = {pair.a, pair.b}
        apart = []
        for group in found:
            if group & joined:
                joined |= group
            else:
                apart.append(group)
        found = [*apart, joined]
    return sorted((sorted(group) for group in found), key=lambda group: (-len(group), group))


def stand(models: list[str], pairs: list[Pair], *, group: int) -> list[Standing]:
    points = points_between(models, pairs)
    best, _ = likeliest(points, np.zeros(len(models)))
    rating = on_elo_scale(best)
    low, high = (
        on_elo_scale(np.array([profile_end(points, best, model, sign) for model in range(len(models))]))
        for sign in (-1, 1)
    )
    order = sorted(range(len(models)), key=lambda index: -rating[index])
    return [
        standing(
            models[index],
            pairs,
            rank=1 + int((low > high[index]).sum()),
            rating=float(rating[index]),
            ci95=(float(low[index]), float(high[index])),
            group=group,
        )
        for index in order
    ]


def on_elo_scale(strengths: np.ndarray) -> np.ndarray:
    return MEAN_RATING + SCALE / math.log(10) * strengths


def standing(model: str, pairs: Sequence[Pair], **known: Any) -> Standing:
    own = [pair if pair.a == model else pair.turned() for pair in pairs if model in (pair.a, pair.b)]
    return Standing(
        model=model,
        votes=sum(pair.votes for pair in own),
        wins=sum(pair.wins for pair in own),
        losses=sum(pair.losses for pair in own),
        ties=sum(pair.ties for pair in own),
        both_bad=sum(pair.both_bad for pair in own),
        win_rate=sum(pair.score for pair in own) / sum(pair.votes for pair in own),
        **known,
    )


def points_between(models: Sequence[str], pairs: Sequence[Pair]) -> np.ndarray:
    """How often the model of a row beat that of a column, ties as half.

    Every pair that met gets one more tie (BayesElo's prior, half of it), or a model that never lost would have an
    infinite rating; with it a model that won 10 of 10 leads by 529 points.
    """
    places = {model: place for place, model in enumerate(models)}
    points = np.zeros((len(models), len(models)))
    for pair in pairs:
        a, b = places[pair.a], places[pair.b]
        points[a, b] += pair.score + 0.5
        points[b, a] += pair.votes - pair.score + 0.5
    return points


def log_likelihood(points: np.ndarray, strengths: np.ndarray) -> float:
    return float(-(points * np.logaddexp(0.0, strengths[None, :] - strengths[:, None])).sum())


def curvature(points: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """Minus the second derivative of the log-likelihood."""
    chances = 1 / (1 + np.exp(strengths[None, :] - strengths[:, None]))
    weights = (points + points.T) * chances * (1 - chances)
    return np.diag(weights.sum(axis=1)) - weights


def likeliest(points: np.ndarray, strengths: np.ndarray, held: int | None = None) -> tuple[np.ndarray, float]:
    """Bradley-Terry strengths whose sum is that of `strengths`; that of the model `held` stays as it is.

    Newton's method from `strengths`. Also gives how fast the log-likelihood rises with the strength that is held.
    """
    count = len(strengths)
    fixed = np.ones((1, count)) if held is None else np.stack([np.ones(count), np.eye(count)[held]])
    for _ in range(NEWTON_STEPS):
        chances = 1 / (1 + np.exp(strengths[None, :] - strengths[:, None]))
        slope = (points - (points + points.T) * chances).sum(axis=1)
        system = np.block([[curvature(points, strengths), fixed.T], [fixed, np.zeros((len(fixed), len(fixed)))]])
        solved = np.linalg.lstsq(system, np.append(slope, np.zeros(len(fixed))), rcond=None)[0]
        step, before = solved[:count], log_likelihood(points, strengths)
        while log_likelihood(points, strengths + step) < before - CLOSE and np.abs(step).max() > CLOSE:
            step = step / 2
        strengths = strengths + step
        if np.abs(step).max() < CLOSE:
            break
    return strengths, float(solved[-1]) if held is not None else 0.0


def profile_end(points: np.ndarray, best: np.ndarray, model: int, sign: int) -> float:
    """How strong or weak a model can be before the likelihood of the votes falls below what 95 % allow.

    Newton's method on the root of twice the fall, which is nearly a line.
    """
    error = math.sqrt(np.linalg.pinv(curvature(points, best))[model, model])
    most, strengths, value = log_likelihood(points, best), best, best[model] + sign * Z95 * error
    for _ in range(NEWTON_STEPS):
        moved = (value - strengths[model]) / (len(best) - 1)
        start = strengths - moved
        start[model] = value
        strengths, slope = likeliest(points, start, held=model)
        root = math.sqrt(2 * max(0.0, most - log_likelihood(points, strengths)))
        if abs(root - Z95) < 1e-4:
            break
        value += (root - Z95) * root / slope
    return value


def agreements(votes: Sequence[Vote]) -> list[Agreement]:
    """People with people, people with each judge, and judges with judges, wherever they saw the same."""
    by_key: dict[Key, list[Vote]] = {}
    for vote in votes:
        by_key.setdefault(vote.key, []).append(vote)
    compared: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for same in by_key.values():
        for one, other in itertools.combinations(sorted(same, key=lambda vote: (vote.by_judge, vote.voter)), 2):
            if one.voter != other.voter:
                compared.setdefault((who(one), who(other)), []).append((opinion(one), opinion(other)))
    return [
        Agreement(
            who=one,
            with_whom=other,
            n=len(opinions),
            agreed=sum(mine == theirs for mine, theirs in opinions),
            krippendorff_alpha=krippendorff_alpha(*(one_of_three(each) for each in zip(*opinions, strict=True))),
        )
        for (one, other), opinions in compared.items()
    ]


def opinion(vote: Vote) -> str:
    """Which of the two, in alphabetical order, or neither."""
    return "neither" if vote.preferred is None else "ab"[vote.preferred == vote.key.b]


def one_of_three(opinions: Sequence[str]) -> np.ndarray:
    """Named opinions as points that are all equally far apart."""
    return np.array([[opinion == each for each in ("a", "b", "neither")] for opinion in opinions], dtype=float)


def as_json(boards: Sequence[Leaderboard], agreed: Sequence[Agreement]) -> dict[str, Any]:
    """What `arena.py rate --json FILE` writes."""
    return {
        "leaderboards": [
            asdict(board)
            | {
                "pairs": [
                    asdict(pair) | {"votes": pair.votes, "win_rate": pair.win_rate, "win_rate_ci95": pair.win_rate_ci95}
                    for pair in board.pairs
                ]
            }
            for board in boards
        ],
        "agreement": [asdict(each) | {"share": each.share} for each in agreed],
    }


def as_text(boards: Sequence[Leaderboard], agreed: Sequence[Agreement]) -> str:
    """Leaderboards for the terminal."""
    lines: list[str] = []
    for board in boards:
        voters = "" if board.who != PEOPLE else f" of {len(board.voters)} voter{'s' * (len(board.voters) != 1)}"
        lines += [f"{board.who}: {count(board.votes, 'vote')}{voters}", *standings_text(board), ""]
        for pair in board.pairs:
            interval = f" [{pair.win_rate_ci95[0]:.3f}, {pair.win_rate_ci95[1]:.3f}]" if pair.win_rate_ci95 else ""
            lines.append(
                f"  {pair.a} against {pair.b}: {pair.wins} won, {pair.losses} lost, {pair.ties} ties, "
                f"{pair.both_bad} both bad; win rate {pair.win_rate:.3f}{interval}"
            )
        lines.append("")
    for each in agreed:
        beyond = "" if each.krippendorff_alpha is None else f", Krippendorff's alpha {each.krippendorff_alpha:.2f}"
        whom = "among themselves" if each.who == each.with_whom else f"and {each.with_whom}"
        lines.append(f"{each.who} {whom}: {each.agreed} of {each.n} votes alike ({each.share:.0%}){beyond}")
    return "\n".join(lines).rstrip()


def standings_text(board: Leaderboard) -> list[str]:
    width = max(5, *(len(each.model) for each in board.standings))
    lines = [f"  rank  {'model':<{width}}  rating  95 % interval     votes   won  lost  tied  both bad"]
    group = 1
    for each in board.standings:
        if each.group != group:
            group = each.group
            lines.append("  (those below never met those above; each group has a mean of 1000)")
        lines.append(
            f"  {each.rank:>4}  {each.model:<{width}}  {each.rating:>6.0f}"
            f"  [{each.ci95[0]:>5.0f}, {each.ci95[1]:>5.0f}]"
            f"    {each.votes:>5}  {each.wins:>4}  {each.losses:>4}  {each.ties:>4}  {each.both_bad:>8}"
        )
    return lines
