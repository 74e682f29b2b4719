"""The answers as the page's script reads them: every row with its measures and what it can be filtered by."""

from collections import Counter
from typing import Any

from heed.report.evidence import Evidence, Verdict
from heed.report.findings import LESS_IS_BETTER, judge_key, label, primary, scores

Judge = tuple[str, str]


def browser_data(evidence: Evidence) -> dict[str, Any]:
    """Names, measures, filters and rows. Values of systems stand in the order of `names`, measures in their own."""
    judges = list(dict.fromkeys(judge_key(each) for each in evidence.verdicts))
    scored = {(*judge_key(each), each["name"], each["row_id"]): each for each in scores(evidence)}
    judges_with_scores = [judge for judge in judges if any(key[:2] == judge for key in scored)]
    metrics = list(dict.fromkeys(m for rows in evidence.items.values() for values in rows.values() for m in values))
    pairs: dict[int, list[Verdict]] = {}
    for verdict in evidence.verdicts:
        if verdict["kind"] == "pair":
            pairs.setdefault(verdict["row_id"], []).append(verdict)
    ids = list(dict.fromkeys(row for answers in evidence.responses.values() for row in answers))
    rows = [row_data(evidence, row, judges_with_scores, scored, metrics, pairs.get(row, [])) for row in ids]
    measures = [{"label": judge_label(judge, judges), "less": False, "judge": True} for judge in judges_with_scores]
    measures += [{"label": label(metric), "less": metric in LESS_IS_BETTER, "judge": False} for metric in metrics]
    best = primary(evidence)
    if best is not None:
        add_outcomes(rows, best_place(best.system, best.metric, judges_with_scores, metrics), measures)
    counts = Counter(tag for row in rows for tag in row["tags"])
    return {
        "names": evidence.names,
        "measures": measures,
        "measure": best_place(best.system, best.metric, judges_with_scores, metrics) if best is not None else None,
        "disputed": dispute_text(judges_with_scores, metrics),
        "filters": [{"tag": tag, "count": count} for tag, count in sorted(counts.items())],
        "rows": rows,
    }


def judge_label(judge: Judge, judges: list[Judge]) -> str:
    """The judge's name, and its prompt where the same model was asked in two ways."""
    model, prompt = judge
    return f"Judge {model}" + (f", {prompt}" if sum(each[0] == model for each in judges) > 1 else "")


def row_data(
    evidence: Evidence,
    row: int,
    judges: list[Judge],
    scored: dict[tuple[str, str, str, int], Verdict],
    metrics: list[str],
    pairs: list[Verdict],
) -> dict[str, Any]:
    answers = [evidence.responses[name].get(row) for name in evidence.names]
    asked = next(answer for answer in reversed(answers) if answer is not None)
    verdicts = [[scored.get((*judge, name, row)) for judge in judges] for name in evidence.names]
    values = [
        [verdict["score"] if verdict else None for verdict in given]
        + [evidence.items.get(name, {}).get(row, {}).get(metric) for metric in metrics]
        for name, given in zip(evidence.names, verdicts, strict=True)
    ]
    return {
        "id": row,
        "instruction": asked["instruction"],
        "input": asked["input"],
        "output": asked["output"],
        "system": asked.get("system_prompt") or "",
        "tags": tags(evidence, answers, verdicts, pairs),
        "answers": [answer_data(answer, given) for answer, given in zip(answers, verdicts, strict=True)],
        "values": values,
        "pairs": [
            {"judge": each["judge"], "winner": winner(each), "failure": each["failure"], "reason": each.get("reason")}
            for each in pairs
        ],
        "disputed": dispute(values[-1], len(judges), metrics),
    }


def answer_data(answer: dict[str, Any] | None, verdicts: list[Verdict | None]) -> dict[str, Any] | None:
    if answer is None:
        return None
    return {
        "text": answer["model_response"],
        "finish": answer.get("finish_reason"),
        "tokens": answer.get("response_tokens"),
        "verdicts": [
            {"judge": each["judge"], "failure": each["failure"], "reason": each.get("reason"), "raw": each.get("raw")}
            for each in verdicts
            if each is not None and (each["failure"] or each.get("reason"))
        ],
    }


def winner(pair: Verdict) -> str | None:
    return {"a": pair["a"], "b": pair["b"], "tie": "tie"}.get(pair["winner"])


def tags(
    evidence: Evidence,
    answers: list[dict[str, Any] | None],
    verdicts: list[list[Verdict | None]],
    pairs: list[Verdict],
) -> list[str]:
    """What a row can be found by; `outcome` tags come later, from the measure the page opens with."""
    found = []
    for name, answer, given in zip(evidence.names, answers, verdicts, strict=True):
        if answer is None:
            found.append(f"No answer: {name}")
            continue
        if answer.get("finish_reason"):
            found.append(f"Finish reason: {name} {answer['finish_reason']}")
        found += [f"Flag: {flag}" for flag in answer.get("flags") or []]
        found += [f"Judge failed: {each['failure']}" for each in given if each is not None and each["failure"]]
    for pair in pairs:
        if pair["failure"]:
            found.append(f"Judge failed: {pair['failure']}")
        else:
            found.append(f"Side by side: {'tie' if pair['winner'] == 'tie' else f'{winner(pair)} wins'}")
    return list(dict.fromkeys(found))


def best_place(system: str, metric: str, judges: list[Judge], metrics: list[str]) -> int | None:
    """Where the measure of the headline stands among all."""
    if system == "judge":
        return next((place for place, (model, _) in enumerate(judges) if metric == f"Score by {model}"), None)
    return len(judges) + metrics.index(metric) if metric in metrics else None


def add_outcomes(rows: list[dict[str, Any]], place: int | None, measures: list[dict[str, Any]]) -> None:
    """Tag every row that both systems answered as better, equal or worse by the measure at `place`."""
    if place is None:
        return
    for row in rows:
        theirs, ours = row["values"][0][place], row["values"][-1][place]
        if len(row["values"]) > 1 and theirs is not None and ours is not None:
            gain = (theirs - ours) if measures[place]["less"] else (ours - theirs)
            row["tags"].append("Outcome: " + ("better" if gain > 0 else "worse" if gain < 0 else "equal"))


def dispute(values: list[float | None], judges: int, metrics: list[str]) -> float | None:
    """How far opinions on the evaluated answer lie apart, from 0 to 100."""
    given = values[:judges]
    if judges > 1:
        present = [score for score in given if score is not None]
        return max(present) - min(present) if len(present) > 1 else None
    place = yardstick(metrics)
    if judges == 1 and place is not None:
        score, value = given[0], values[judges + place]
        return abs(score - 100 * value) if score is not None and value is not None else None
    return None


def dispute_text(judges: list[Judge], metrics: list[str]) -> str | None:
    if len(judges) > 1:
        return "the judges' scores lie furthest apart"
    place = yardstick(metrics)
    if len(judges) == 1 and place is not None:
        return f"the judge's score and {label(metrics[place])} lie furthest apart"
    return None


def yardstick(metrics: list[str]) -> int | None:
    """The metric that a single judge is held against: one that knows more than right and wrong."""
    return next((metrics.index(each) for each in ("rougeL", "token_f1", "exact_match") if each in metrics), None)
