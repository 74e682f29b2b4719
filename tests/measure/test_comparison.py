import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heed.answers.responses import Answer
from heed.errors import UserError
from heed.measure.clusters import clusters_of
from heed.measure.comparison import System, Worse, compare, comparison_rows, write_comparison
from heed.measure.measurements import Measurement, mean_measurement
from heed.measure.metrics import load_metrics, measure

OUTPUTS = ["one two three four five", "six seven eight nine ten", "red", "blue"]


def system(name: str, texts: Mapping[int, str], metrics: Sequence[str] = ("exact_match",), **rest: Any) -> System:
    answers = [
        Answer(row_id=row_id, instruction=f"Say {row_id}.", input="", output=OUTPUTS[row_id], model_response=text)
        for row_id, text in texts.items()
    ]
    return System(
        name=name, answers=answers, measurements=measure(load_metrics(metrics), answers), contract="c0ffee", **rest
    )


BASE = system("base", {0: "no", 1: OUTPUTS[1], 2: "red", 3: "no"}, ["exact_match", "chrf"])
# in another order, right where the base was wrong, and wrong once where it was right
TUNED = system("tuned", {3: "blue", 2: "red", 1: "six", 0: OUTPUTS[0]}, ["exact_match", "chrf"])


def test_rows_are_compared_in_pairs_whatever_their_order() -> None:
    found = compare(BASE, TUNED)
    exact = found.metrics["exact_match"]
    assert (found.a, found.b) == ("base", "tuned")
    assert (exact.a, exact.b, exact.difference, exact.n) == (0.5, 0.75, 0.25, 4)
    assert (exact.wins, exact.ties, exact.losses) == (2, 1, 1)
    assert exact.ci95 is not None and exact.ci95[0] < 0 < exact.ci95[1]  # four rows prove nothing


def test_rows_that_got_worse_come_worst_first() -> None:
    worse = compare(BASE, TUNED).worse
    assert worse[0] == Worse(row_id=1, metric="exact_match", a=1.0, b=0.0)
    assert [(each.row_id, each.metric) for each in worse[1:]] == [(1, "chrf")]  # it lost less than all of its scale
    assert worse[1].a == pytest.approx(100.0) and 0 < worse[1].b < 100


def test_an_accent_is_compared_as_it_was_measured_however_it_is_written() -> None:
    apart = system("tuned", {0: "cafe\u0301"}, ["chrf"])
    [answer] = [replace(each, output="caf\u00e9") for each in apart.answers]
    chrf = load_metrics(["chrf"])
    tuned = replace(apart, answers=[answer, replace(answer, row_id=1)])
    tuned = replace(tuned, measurements=measure(chrf, tuned.answers))
    answers = [replace(each, model_response="tea") for each in tuned.answers]
    base = replace(tuned, name="base", answers=answers, measurements=measure(chrf, answers))

    assert (tuned.measurements[0].value, compare(base, tuned).metrics["chrf"].b) == (100.0, 100.0)


def test_a_corpus_score_is_compared_as_it_was_measured() -> None:
    chrf = compare(BASE, TUNED).metrics["chrf"]
    values = (
        {each.metric: each.value for each in BASE.measurements},
        {each.metric: each.value for each in TUNED.measurements},
    )
    assert (chrf.a, chrf.b) == (values[0]["chrf"], values[1]["chrf"])
    assert chrf.difference == pytest.approx(chrf.b - chrf.a)
    assert (chrf.wins, chrf.ties, chrf.losses) == (2, 1, 1)


def test_less_is_better_where_the_metric_says_so_and_a_description_has_no_winner() -> None:
    before, after = system("base", {0: "", 1: "a"}), system("tuned", {0: "a", 1: "a b"})
    found = compare(before, after)
    empty, length = found.metrics["empty"], found.metrics["length_ratio"]
    assert (empty.a, empty.b, empty.wins, empty.ties, empty.losses, empty.better) == (0.5, 0.0, 1, 1, 0, "lower")
    assert (length.difference, length.wins, length.ties, length.losses) == (pytest.approx(0.2), None, None, None)
    assert compare(after, before).worse == [Worse(row_id=0, metric="empty", a=0.0, b=1.0)]


def test_what_cannot_be_compared_is_noted() -> None:
    whole = Measurement(metric="evaluate:x", value=1.0, ci95=None, n=4, items=None)
    one = replace(BASE, measurements=[whole, mean_measurement("p_eos", [0.5, None, 0.5, 0.5])], contract=None)
    other = replace(
        one,
        name="tuned",
        measurements=[whole, mean_measurement("p_eos", [None, None, 0.75, 0.5]), *BASE.measurements[:1]],
    )
    found = compare(one, other)
    assert found.notes == (
        "it is not known whether both were asked with the same prompt",
        "evaluate:x: it has no value for single rows, so it cannot be compared in pairs",
        "p_eos: 2 rows not covered on both sides",
        "exact_match: measured for tuned only",
    )
    p_eos = found.metrics["p_eos"]
    assert (p_eos.a, p_eos.b, p_eos.n, p_eos.wins, p_eos.ties) == (0.5, 0.625, 2, 1, 1)


def test_other_rows_are_refused_with_the_first_difference() -> None:
    with pytest.raises(UserError, match=r"base and tuned did not answer the same rows: tuned has no row 1;"):
        compare(BASE, system("tuned", {0: "a", 2: "b"}))
    with pytest.raises(UserError, match=r"tuned and base did not answer the same rows: base has no row 3;"):
        compare(system("base", {0: "a"}), system("tuned", {0: "a", 3: "b"}))
    for field, value in (("output", "green"), ("instruction", "Sing."), ("system_prompt", "Be brief.")):
        change: dict[str, Any] = {field: value}
        changed = replace(TUNED, answers=[replace(each, **change) for each in TUNED.answers])
        with pytest.raises(UserError, match=rf"{field} of row 0 is '.*' for base and '{value}' for tuned"):
            compare(BASE, changed)


def test_another_prompt_is_refused() -> None:
    with pytest.raises(UserError, match=r"asked with different prompts \(contracts c0ffee and dead"):
        compare(BASE, replace(TUNED, contract="dead"))


def test_a_comparison_is_written_and_gives_rows(tmp_path: Path) -> None:
    found = compare(BASE, TUNED)
    written = json.loads(write_comparison(tmp_path, found).read_text())
    assert written["metrics"]["exact_match"]["difference"] == 0.25
    assert written["worse"][0] == {"row_id": 1, "metric": "exact_match", "a": 1.0, "b": 0.0}
    row = comparison_rows(
        found,
        task="test",
        n_full=4,
        model="runs/demo",
        contract="c0ffee",
        data="rows.json",
        data_sha256="ab12",
        versions={},
        command="python eval_responses.py",
    )[0]
    assert (row.system, row.metric, row.name, row.value, row.n) == (
        "comparison",
        "exact_match",
        "tuned - base",
        0.25,
        4,
    )
    assert row.details == {
        **{"a": 0.5, "b": 0.75, "wins": 2, "ties": 1, "losses": 1, "better": "higher"},
        **{"p": pytest.approx(1.0, abs=0.01), "p_adjusted": 1.0, "verdict": "no clear difference"},
    }


def test_one_metric_decides_and_the_others_are_adjusted_for_being_many() -> None:
    texts = {row: OUTPUTS[row % 4] for row in range(4)}
    rows = {row: texts[row % 4] for row in range(4)}
    found = compare(
        system("base", dict.fromkeys(rows, "no"), ["exact_match", "token_f1"]),
        system("tuned", rows, ["exact_match", "token_f1"]),
        headline="exact_match",
    )
    assert found.headline == "exact_match" and found.metrics["exact_match"].p_adjusted is None
    assert found.metrics["exact_match"].p == 0.125  # four of four, as McNemar's exact test has it
    assert found.metrics["exact_match"].verdict == "no clear difference"
    adjusted = found.metrics["token_f1"].p_adjusted
    assert adjusted is not None and adjusted >= 0.25  # one of three that could be better or worse
    assert compare(BASE, TUNED, headline="judge_score").headline is None


def test_rows_of_one_question_are_drawn_together() -> None:
    def answers(name: str, right: bool) -> System:
        given = [
            Answer(
                row_id=row, instruction=f"Q{row % 12}", input="", output="yes", model_response="yes" if right else "no"
            )
            for row in range(120)
        ]
        return System(
            name=name, answers=given, measurements=measure(load_metrics(["exact_match"]), given), contract="c0ffee"
        )

    base, tuned = answers("base", False), answers("tuned", True)
    alone, together = (
        compare(base, tuned, clusters=clusters).metrics["exact_match"]
        for clusters in (None, clusters_of(base.answers, "instruction"))
    )
    assert alone.ci95 is not None and together.ci95 is not None
    assert alone.ci95[0] > 0.9 and 0.4 < together.ci95[0] < 0.6  # 12 of 12, not 120 of 120
