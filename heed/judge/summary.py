"""judge_summary.json for people, and as rows of rows.jsonl."""

from collections.abc import Mapping, Sequence
from typing import Any

from heed.measure.intervals import Estimate
from heed.measure.rows import Row, measured
from heed.saying import count


def summary_text(summary: Mapping[str, Any]) -> str:
    """What a person reads at the end: means with their error and count, what failed, and whether to believe it."""
    lines: list[str] = []
    for entry in summary["judges"]:
        lines += ["", f"judge {entry['judge']}, prompt {entry['prompt']}, {count(entry['rows'], 'row')}"]
        lines += [f"  {name:<8} {score_text(scores)}" for name, scores in entry["scores"].items()]
        for names, pairs in entry["pairs"].items():
            lines += [f"  {names}: {text}" for text in pair_text(names, pairs)]
        checked = {"controls": entry["controls"], "controls in pairs": entry["pair_controls"]}
        lines += [f"  {name}: {each['text']}" for name, each in checked.items() if each]
        correlations = {name: value for name, value in entry["length_correlation"].items() if value is not None}
        if correlations:
            shown = ", ".join(f"{name} {value:+.2f}" for name, value in correlations.items())
            lines.append(f"  correlation of score and length: {shown}")
        lines.append(f"  {usage_text(entry)}")
    for each in summary["agreement"]:
        lines += ["", f"agreement of {each['a']} and {each['b']} on {each['n']} {each['on']}"]
        lines.append(
            f"  Spearman {number(each['spearman'])}, Krippendorff's alpha {number(each['krippendorff_alpha'])}, "
            f"mean absolute error {number(each['mean_absolute_error'])}, bias {number(each['bias'])}"
        )
    return "\n".join(lines)


def score_text(scores: Mapping[str, Any]) -> str:
    failures = failures_text(scores["failures"])
    if scores["withheld"] or scores["mean"] is None:
        return f"mean withheld: {failures} of {scores['n_full']}, more than 5 %"
    text = f"{scores['mean']:5.1f} {interval_text(scores['ci95'])} on {count(scores['n'], 'row')}, {failures}"
    if corrected := scores.get("corrected"):
        text += f"; corrected {corrected['mean']:.1f} {interval_text(corrected['ci95'])} by people's scores of "
        text += f"{count(corrected['n'], 'row')}"
    return text


def pair_text(names: str, pairs: Mapping[str, Any]) -> list[str]:
    a, b = names.split(" vs ")
    failures = f"{pairs['failures']} failed" + (f" {pairs['failure_reasons']}" if pairs["failures"] else "")
    lines = [
        f"{b} won {pairs['wins']}, tied {pairs['ties']} ({pairs['identical']} with the same text), lost "
        f"{pairs['losses']}, {failures}"
    ]
    if pairs["withheld"] or pairs["win_rate"] is None:
        lines.append("win rate withheld: more than 5 % of the pairs failed")
    else:
        lines.append(f"win rate of {b} over {a} {pairs['win_rate']:.3f} {interval_text(pairs['ci95'], '.3f')}")
    if pairs["consistency"] is not None:
        first = number(pairs["first_position_rate"])
        lines.append(f"same verdict in both orders {pairs['consistency']:.2f}, wins of whoever came first {first}")
    return lines


def failures_text(failures: Mapping[str, int]) -> str:
    if not failures:
        return "0 failed"
    return f"{sum(failures.values())} failed ({', '.join(f'{count} {reason}' for reason, count in failures.items())})"


def interval_text(interval: Sequence[float] | None, form: str = ".1f") -> str:
    return f"[{interval[0]:{form}}, {interval[1]:{form}}]" if interval else "[no interval]"


def usage_text(entry: Mapping[str, Any]) -> str:
    tokens = f"{entry['prompt_tokens']:,} prompt and {entry['completion_tokens']:,} completion tokens"
    text = f"{count(entry['requests'], 'request')}, {entry['cached']} from the cache, {tokens}"
    if entry["uncounted"]:
        text += f" ({entry['uncounted']} replies not counted by the server)"
    if entry["cost"] is not None:
        text += f", cost {entry['cost']:.4f}"
    text += f", {entry['seconds']:.1f} s"
    return f"{text}; STOPPED EARLY: {entry['stopped']}" if entry["stopped"] else text


def number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def judge_rows(entry: Mapping[str, Any], provenance: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """The lines of one judge for rows.jsonl. `provenance` has, by system, the fields of a Row that say what was judged:
    model, contract, data, data_sha256, versions, command, and limit where there is one."""
    common = {
        "system": "judge",
        "task": f"{entry['judge']} {entry['prompt']}",
        "library": entry["library"],
        "seconds": entry["seconds"],
    }
    notes = notes_of(entry)
    rows = []
    for name, scores in entry["scores"].items():
        rows.append(
            Row(
                **{**common, **provenance[name], **estimate_fields(scores["mean"], scores)},
                metric="judge_score",
                name=name,
                n_full=scores["n_full"],
                notes=(*((score_text(scores),) if scores["withheld"] else ()), *notes),
                details={
                    "failures": scores["failures"],
                    "length_correlation": entry["length_correlation"][name],
                    "corrected": scores.get("corrected"),
                },
            )
        )
    for names, pairs in entry["pairs"].items():
        a, b = names.split(" vs ")
        rows.append(
            Row(
                **{**common, **provenance[b], **estimate_fields(pairs["win_rate"], pairs)},
                metric=f"win_rate_over_{a}",
                name=b,
                n_full=pairs["n_full"],
                chance=0.5,
                notes=(*(("withheld: more than 5 % of the pairs failed",) if pairs["withheld"] else ()), *notes),
                details=dict(pairs),
            )
        )
    return rows


def estimate_fields(value: float | None, summary: Mapping[str, Any]) -> dict[str, Any]:
    """A withheld value keeps its count."""
    if value is None:
        return {"value": None, "ci95": None, "n": summary["n"]}
    return measured(Estimate(value=value, ci95=summary["ci95"], n=summary["n"]))


def notes_of(entry: Mapping[str, Any]) -> tuple[str, ...]:
    failed = [each["text"] for each in (entry["controls"], entry["pair_controls"]) if each and not each["passed"]]
    return (*failed, *([f"stopped early: {entry['stopped']}"] if entry["stopped"] else []))
