"""Ratings from votes: Bradley-Terry strengths on the Elo scale, win rates, and how far voters agree.

A tie counts half a win for each model, and so does "both bad", which is counted apart as well. People and each judge
get leaderboards of their own: mixing them would let a judge who answers everything outvote people.
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

PEOPLE = "people"
MEAN_RATING, SCALE = 1000.0, 400.0
RESAMPLES = 500
# Resampling 10 wins of 10 can only give 10 wins: an interval without width. So outcomes are drawn as if each one that a
# pair can have had been seen half a time more.
UNSEEN = 0.5
Z95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """All votes between two models, told from the side of `a`."""

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
    def win_rate_ci95(self) -> tuple[float, float]:
        return wilson(self.score, self.votes)

    def turned(self) -> "Pair":
        return Pair(a=self.b, b=self.a, wins=self.losses, losses=self.wins, ties=self.ties, both_bad=self.both_bad)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One model among those it can be compared with."""

    model: str
    rank: int
    """One more than the models whose whole interval lies above this one's."""
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
        """The votes between two models, told from the side of the first."""
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


def wilson(successes: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927). With half points it is rather too wide than too narrow."""
    share, z2 = successes / n, Z95 * Z95
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return (max(0.0, middle - half), min(1.0, middle + half))


def leaderboards(votes: Sequence[Vote], *, seed: int = 0) -> list[Leaderboard]:
    """One for people and one for each judge, as far as they voted."""
    by_who: dict[str, list[Vote]] = {}
    for vote in sorted(votes, key=lambda vote: (vote.by_judge, vote.voter)):
        by_who.setdefault(who(vote), []).append(vote)
    return [rate(each, who=name, seed=seed) for name, each in by_who.items()]


def who(vote: Vote) -> str:
    return vote.voter if vote.by_judge else PEOPLE


def rate(votes: Sequence[Vote], *, who: str = PEOPLE, seed: int = 0) -> Leaderboard:
    """Ratings of the models of these votes, with 95 % intervals from a smoothed bootstrap over votes."""
    pairs = tally(votes)
    standings: list[Standing] = []
    for group, models in enumerate(groups(pairs), 1):
        inside = [pair for pair in pairs if pair.a in models]
        standings += stand(models, inside, group=group, seed=seed)
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


def stand(models: list[str], pairs: list[Pair], *, group: int, seed: int) -> list[Standing]:
    counts = np.array([[pair.wins, pair.losses, pair.ties + pair.both_bad] for pair in pairs])
    rating = elo(models, pairs, counts)
    rng = np.random.default_rng(seed)
    total = int(counts.sum())
    likely = (counts + UNSEEN).ravel()
    resampled = rng.multinomial(total, likely / likely.sum(), size=RESAMPLES).reshape(RESAMPLES, *counts.shape)
    drawn = np.array([elo(models, pairs, each) for each in resampled])
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
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


def elo(models: Sequence[str], pairs: Sequence[Pair], counts: np.ndarray) -> np.ndarray:
    """Bradley-Terry strengths as 400 log10, 1000 on the average.

    Every pair that met gets one more tie (BayesElo's prior, half of it), or a model that never lost would have an
    infinite rating; with it a model that won 10 of 10 leads by 529 points.
    """
    import evalica  # brings pandas

    xs = [pair.a for pair in pairs for _ in range(3)]
    ys = [pair.b for pair in pairs for _ in range(3)]
    winners = [evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw] * len(pairs)
    weights = (counts + np.array([0, 0, 1])).ravel().astype(float)
    scores = evalica.bradley_terry(xs, ys, winners, weights=weights, tolerance=1e-8, limit=10_000).scores
    strengths = SCALE * np.log10(scores.reindex(list(models)).to_numpy())
    return MEAN_RATING + strengths - strengths.mean()


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
            krippendorff_alpha=alpha(opinions),
        )
        for (one, other), opinions in compared.items()
    ]


def opinion(vote: Vote) -> str:
    """Which of the two, in the order of the alphabet, or neither."""
    return "neither" if vote.preferred is None else "ab"[vote.preferred == vote.key.b]


def alpha(opinions: Sequence[tuple[str, str]]) -> float | None:
    if len({opinion for both in opinions for opinion in both}) < 2:
        return None  # all of one opinion: agreement by chance would be complete, too
    import evalica
    import pandas

    return float(evalica.alpha(pandas.DataFrame(opinions).T, distance="nominal").alpha)


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
        lines += [f"{board.who}: {board.votes} votes{voters}", *standings_text(board), ""]
        for pair in board.pairs:
            low, high = pair.win_rate_ci95
            lines.append(
                f"  {pair.a} against {pair.b}: {pair.wins} won, {pair.losses} lost, {pair.ties} ties, "
                f"{pair.both_bad} both bad; win rate {pair.win_rate:.3f} [{low:.3f}, {high:.3f}]"
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
