"""A comparison of runs as the terminal shows it: one line for each recipe, and what can be concluded."""

from heed.measure.verdict import BETTER, TOO_FEW
from heed.report.words import in_sentence, interval_text, is_wide, label, number, signed
from heed.saying import count
from heed.study.curve import Curve
from heed.study.standings import Gain, Standing, Study


def study_text(study: Study) -> str:
    lines = [conclusion(study), ""]
    width = max(len(each.recipe.name) for each in study.standings)
    for each in study.standings:
        lines.append(f"{each.recipe.name:<{width}}  {standing_text(each, study)}")
        if each.recipe.settings:
            lines.append(
                " " * (width + 2) + ", ".join(f"{name}: {value}" for name, value in each.recipe.settings.items())
            )
    lines += [f"apart     {each.run.name}: {each.reason}" for each in study.apart]
    return "\n".join(lines)


def conclusion(study: Study) -> str:
    """Which recipe is best, and which ones it clearly beats."""
    best, *others = study.standings
    wide = wide_of(study)
    rows = count(len(study.questions), "common row")
    interval = f" [{interval_text(best.rows.ci95, wide=wide)}]" if best.rows.ci95 else ""
    value = f"{in_sentence(label(study.metric))} {number(best.rows.value, wide=wide)}{interval} on {rows}"
    if not others:
        return f"One recipe, {best.recipe.name}: {value}."
    clear = [each for each in others if each.verdict == BETTER]
    if all(each.verdict == TOO_FEW for each in others):
        told = "too few rows to tell it from the others"
    elif len(clear) == len(others):
        told = f"better than {'the other' if len(others) == 1 else f'each of the other {len(others)}'}"
    elif clear:
        told = f"better than {len(clear)} of the other {len(others)}, not clearly better than the rest"
    else:
        told = f"no clear difference from {'the other' if len(others) == 1 else f'any of the other {len(others)}'}"
    return f"Highest: {best.recipe.name}, {value}; {told}. {scope(study)}"


def scope(study: Study) -> str:
    if all(len(each.recipe.runs) == 1 for each in study.standings):
        return "Each was trained with one seed: what another seed would change is not known."
    if any(len(each.recipe.runs) == 1 for each in study.standings):
        return "Where a recipe has one seed, what another seed would change is not known."
    return "A difference counts where rows and seeds both show it."


def standing_text(standing: Standing, study: Study) -> str:
    wide = wide_of(study)
    text = number(standing.rows.value, wide=wide)
    if standing.rows.ci95:
        text += f" [{interval_text(standing.rows.ci95, wide=wide)}]"
    if standing.gain is not None:
        text += f"  to the base {gain_text(standing.gain, wide=wide)}"
    if standing.behind is not None:
        text += f"  to the best {signed(-standing.behind.value, wide=wide)}: {told(standing)}"
    return text


def told(standing: Standing) -> str:
    """The verdict is of the best against this one; here it is about this one."""
    return "worse" if standing.verdict == BETTER else standing.verdict


def gain_text(gain: Gain, *, wide: bool) -> str:
    """+0.41, \N{PLUS-MINUS SIGN} 0.03 over seeds, \N{PLUS-MINUS SIGN} 0.05 over rows; 3 of 3 agree."""
    errors = [
        f"\N{PLUS-MINUS SIGN} {number((each.ci95[1] - each.ci95[0]) / 2, wide=wide)} over {what}"
        for what, each in (("seeds", gain.seeds), ("rows", gain.rows))
        if each.ci95 is not None
    ]
    text = ", ".join([signed(gain.rows.value, wide=wide), *errors])
    return text + (f"; {gain.agree} of {gain.seeds.n} agree" if gain.seeds.n > 1 else "")


def curve_text(curve: Curve, study: Study) -> str:
    """What twice the rows would bring, and how well the law predicted the largest share."""
    wide, last = wide_of(study), curve.points[-1]
    gain, interval = curve.gain, interval_text(curve.gain.ci95, wide=wide, with_sign=True)
    what = f"{2 * last.rows:,} training rows instead of {last.rows:,}"
    if curve.told and number(abs(gain.value), wide=wide).strip("0.") == "":
        text = f"Twice the rows ({what}) would bring nothing that shows: {signed(gain.value, wide=wide)} [{interval}]"
    elif curve.told:
        text = f"Twice the rows ({what}) would bring about {signed(gain.value, wide=wide)} [{interval}]"
    else:
        text = f"What twice the rows ({what}) would bring is unclear: {signed(gain.value, wide=wide)} [{interval}]"
    seeds = all(len(each.recipe.runs) > 1 for each in study.standings)
    over = "rows and seeds" if seeds else "rows; what other seeds would give is not in it"
    text += f", if the power law through these runs continues. The interval is over {over}."
    if curve.check is not None and curve.check.ci95 is not None:
        low, high = curve.check.ci95
        inside = "holds" if low <= last.score.value <= high else "does not hold"
        text += (
            f" Through the smaller shares alone it says {number(curve.check.value, wide=wide)} "
            f"[{interval_text(curve.check.ci95, wide=wide)}] for all rows, and that {inside}: "
            f"{number(last.score.value, wide=wide)} was measured."
        )
    return text


def wide_of(study: Study) -> bool:
    return is_wide(*study.within)
