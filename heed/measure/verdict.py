"""What a difference says: better, worse, equal, or no clear difference. One metric decides; the others are adjusted."""

from collections.abc import Mapping

LEVEL = 0.05
ROUNDING = 1e-9
BETTER, WORSE, EQUAL = "better", "worse", "equal"
UNCLEAR, TOO_FEW = "no clear difference", "too few rows to tell"
JUDGE_SCORE = "judge_score"
SCOPE = (
    "Intervals and verdicts are about more rows of the same kind, answered by the same models in the same way; what "
    "another training seed, prompt or way of decoding would change is not in them."
)


def verdict(difference: float, ci95: tuple[float, float] | None, p: float | None, better: str) -> str:
    """`better` is higher, lower, or neither: then there is no verdict. Without `p` the interval decides."""
    if better == "neither":
        return ""
    if ci95 is None:
        return TOO_FEW
    if abs(difference) < ROUNDING:
        return EQUAL
    clear = p < LEVEL if p is not None else not ci95[0] <= 0 <= ci95[1]
    if not clear:
        return UNCLEAR
    return BETTER if (difference > 0) == (better == "higher") else WORSE


def decides(metric: str) -> str:
    return f"The verdict is about {metric}; the others are adjusted for their number (Holm). {SCOPE}"


def holm(p_values: Mapping[str, float], *, of: int | None = None) -> dict[str, float]:
    """Adjusted so that all of them together are right 95 times of 100 (Holm 1979).

    `of` is how many there were to choose from, where that is more than these.
    """
    adjusted, least = {}, 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        least = max(least, min(1.0, p_values[name] * ((of or len(p_values)) - place)))
        adjusted[name] = least
    return adjusted
