"""The answers as the page's script reads them: every row with its measures and what it can be filtered by."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

from heed.answers.responses import Answer
from heed.report.evidence import Evidence, Verdict
from heed.report.judges import judge_key, judge_label, scores
from heed.report.lost import lost
from heed.report.results import OWN_SYSTEMS, JudgeKey, Result
from heed.report.words import is_wide, label

LESS_IS_BETTER = {"premature_eos", "cut"}


def browser_data(evidence: Evidence, primary: Result | None) -> dict[str, Any]:
    """Names, measures, filters, what judges said, and rows.

    Values of systems are in the order of `names`, measures in their own. Tags of a row are places among the filters. A
    verdict is a place among what judges said, and a text if it has one.
    """
    names = [name for name in evidence.names if name in evidence.responses]
    scored = {(*judge_key(each), each["name"], each["row_id"]): each for each in scores(evidence)}
    judges = list(dict.fromkeys(judge_key(each) for each in scored.values()))
    metrics = list(dict.fromkeys(m for rows in evidence.items.values() for values in rows.values() for m in values))
    pairs: dict[int, list[Verdict]] = {}
    for verdict in evidence.verdicts:
        if verdict["kind"] == "pair" and verdict["control"] is None:
            pairs.setdefault(verdict["row_id"], []).append(verdict)
    ids = list(dict.fromkeys(row for answers in evidence.responses.values() for row in answers))
    rows = [row_data(evidence, names, row, judges, scored, metrics, pairs.get(row, [])) for row in ids]
    measures: list[dict[str, Any]] = [
        {"label": f"Score by {judge_label(judge, judges)}", "less": False, "digits": 0} for judge in judges
    ]
    measures += [
        {"label": label(metric), "less": less_is_better(evidence, metric), "digits": digits(evidence, metric)}
        for metric in metrics
    ]
    place = opening_measure(primary, judges, metrics)
    if place is not None:
        add_outcomes(rows, place, less=measures[place]["less"])
    gone = {each.row_id for each in lost(evidence)}
    for row in rows:
        row["tags"] += [f"Outcome: right with {names[0]}, wrong with {names[-1]}"] if row["id"] in gone else []
    counts = sorted(Counter(tag for row in rows for tag in row["tags"]).items())
    places = {tag: place for place, (tag, _) in enumerate(counts)}
    for row in rows:
        row["tags"] = [places[tag] for tag in row["tags"]]
    said: dict[tuple[str, bool], int] = {}
    for each in chain.from_iterable(map(verdicts_of, rows)):
        each[0] = said.setdefault(each[0], len(said))
    return {
        "names": names,
        "measures": measures,
        "measure": place,
        "disputed": dispute_text(judges, metrics),
        "filters": [{"tag": tag, "count": count} for tag, count in counts],
        "said": [{"text": text, "failed": failed} for text, failed in said],
        "rows": rows,
    }


def less_is_better(evidence: Evidence, metric: str) -> bool:
    """As rows.jsonl has it; where that does not know the metric, by its name."""
    known = {row.metric: not row.higher_is_better for row in evidence.rows if row.system in OWN_SYSTEMS}
    return known.get(metric, metric in LESS_IS_BETTER)


def digits(evidence: Evidence, metric: str) -> int:
    """Decimals of a measure, the same in every row and of every system."""
    values = [rows[row].get(metric) for rows in evidence.items.values() for row in rows]
    return 1 if is_wide(*values) else 3


def row_data(
    evidence: Evidence,
    names: list[str],
    row: int,
    judges: list[JudgeKey],
    scored: dict[tuple[str, str, str, int], Verdict],
    metrics: list[str],
    pairs: list[Verdict],
) -> dict[str, Any]:
    answers = [evidence.responses[name].get(row) for name in names]
    asked = next(answer for answer in reversed(answers) if answer is not None)
    verdicts = [[scored.get((*judge, name, row)) for judge in judges] for name in names]
    values = [
        [verdict["score"] if verdict else None for verdict in given]
        + [shortened(evidence.items.get(name, {}).get(row, {}).get(metric)) for metric in metrics]
        for name, given in zip(names, verdicts, strict=True)
    ]
    return {
        "id": row,
        "tags": tags(names, answers, verdicts, pairs),
        "answers": [answer_data(answer, given) for answer, given in zip(answers, verdicts, strict=True)],
        "values": values,
    } | filled(
        instruction=asked.instruction,
        input=asked.input,
        output=asked.output,
        system=asked.system_prompt,
        pairs=list(map(verdict_data, pairs)),
        disputed=dispute(values[-1], len(judges), metrics),
    )


def filled(**values: Any) -> dict[str, Any]:
    """Those that are not empty: on a large page the names of the others would be a fifth of it."""
    return {name: value for name, value in values.items() if value or value == 0}


def shortened(value: float | None) -> float | None:
    """To six decimals, of which the page shows three at most: the rest would be half of a large page."""
    return round(value, 6) if isinstance(value, float) else value


def answer_data(answer: Answer | None, verdicts: list[Verdict | None]) -> dict[str, Any] | None:
    if answer is None:
        return None
    return filled(
        text=answer.model_response,
        finish=answer.finish_reason,
        tokens=answer.response_tokens,
        verdicts=[verdict_data(each) for each in verdicts if each and (each["failure"] or each.get("reason"))],
    )


def verdict_data(verdict: Verdict) -> list[Any]:
    """What a judge said in short and whether it failed, and why it said so; of a failure, what it replied."""
    failed = bool(verdict["failure"])
    said = verdict["judge"]
    if verdict["kind"] == "pair":
        said += ", side by side,"
    if failed:
        said += f" failed ({verdict['failure']})"
    elif verdict["kind"] == "pair":
        said += " a tie" if verdict["winner"] == "tie" else f" {winner(verdict)} wins"
    text = verdict.get("raw" if failed else "reason")
    return [(said, failed), text] if text else [(said, failed)]


def verdicts_of(row: dict[str, Any]) -> Iterator[list[Any]]:
    """All that judges said of a row, as its data has it."""
    answered = (answer.get("verdicts", []) for answer in row["answers"] if answer is not None)
    return chain(*answered, row.get("pairs", []))


def winner(pair: Verdict) -> str | None:
    return {"a": pair["a"], "b": pair["b"], "tie": "tie"}.get(pair["winner"])


def tags(
    names: list[str],
    answers: list[Answer | None],
    verdicts: list[list[Verdict | None]],
    pairs: list[Verdict],
) -> list[str]:
    """What a row can be found by; `outcome` tags come later, from the measure the page opens with."""
    found = []
    for name, answer, given in zip(names, answers, verdicts, strict=True):
        if answer is None:
            found.append(f"No answer: {name}")
            continue
        if answer.finish_reason:
            found.append(f"Finish reason: {name} {answer.finish_reason}")
        found += [f"Flag: {flag}" for flag in answer.flags]
        found += [f"Judge failed: {each['failure']}" for each in given if each is not None and each["failure"]]
    for pair in pairs:
        if pair["failure"]:
            found.append(f"Judge failed: {pair['failure']}")
        else:
            found.append(f"Side by side: {'tie' if pair['winner'] == 'tie' else f'{winner(pair)} wins'}")
    return list(dict.fromkeys(found))


def opening_measure(result: Result | None, judges: list[JudgeKey], metrics: list[str]) -> int | None:
    """Which of all measures is the headline's; None when rows have no value of it."""
    if result is None:
        return None
    if result.judge is not None:
        return judges.index(result.judge) if result.judge in judges else None
    return len(judges) + metrics.index(result.metric) if result.metric in metrics else None


def worst_first(data: dict[str, Any]) -> list[int]:
    """Row ids in the order in which the page opens."""
    if not data["measures"]:
        return sorted(row["id"] for row in data["rows"])
    place = data["measure"] or 0
    sign = -1 if data["measures"][place]["less"] else 1

    def order(row: dict[str, Any]) -> tuple[bool, float, int]:
        value = row["values"][-1][place]
        return value is None, 0 if value is None else sign * value, row["id"]

    return [row["id"] for row in sorted(data["rows"], key=order)]


def add_outcomes(rows: list[dict[str, Any]], place: int, *, less: bool) -> None:
    """Tag every row that both systems answered as better, equal or worse by the measure at `place`."""
    for row in rows:
        theirs, ours = row["values"][0][place], row["values"][-1][place]
        if len(row["values"]) > 1 and theirs is not None and ours is not None:
            gain = (theirs - ours) if less else (ours - theirs)
            row["tags"].append("Outcome: " + ("better" if gain > 0 else "worse" if gain < 0 else "equal"))


def dispute(values: list[float | None], judges: int, metrics: list[str]) -> float | None:
    """How far opinions on the evaluated answer differ, from 0 to 100."""
    given = values[:judges]
    if judges > 1:
        present = [score for score in given if score is not None]
        return max(present) - min(present) if len(present) > 1 else None
    place = yardstick(metrics)
    if judges == 1 and place is not None:
        score, value = given[0], values[judges + place]
        return abs(score - 100 * value) if score is not None and value is not None else None
    return None


def dispute_text(judges: list[JudgeKey], metrics: list[str]) -> str | None:
    if len(judges) > 1:
        return "the judges' scores are furthest apart"
    place = yardstick(metrics)
    if len(judges) == 1 and place is not None:
        return f"the judge's score and {label(metrics[place])} are furthest apart"
    return None


def yardstick(metrics: list[str]) -> int | None:
    """The metric that a single judge is compared with: one that knows more than right and wrong."""
    return next((metrics.index(each) for each in ("rougeL", "token_f1", "exact_match") if each in metrics), None)
