"""Many runs side by side: what is compared, with which errors, and what is left out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import compare_runs as script
from heed.errors import UserError
from heed.hub.card import seeds_text
from heed.report.evidence import find_comparison, read_evidence
from heed.study import compare_runs
from heed.study.standings import Study
from world.browser import DESK, PHONE, chromium, visit
from world.compared_runs import write_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["chromium"]  # a fixture

RIGHT, HALF = [1.0] * 40, [1.0, 0.0] * 20


def shares(right: int, rows: int) -> list[float]:
    return [1.0] * right + [0.0] * (rows - right)


def compared(*folders: Path) -> tuple[Study, str]:
    said: list[str] = []
    return compare_runs(folders, None, None, say=said.append), "\n".join(said)


def test_a_difference_that_rows_show_is_called_better_and_the_keys_that_differ_are_named(tmp_path: Path) -> None:
    good = write_run(tmp_path / "good", RIGHT, base=[0.0] * 40, config={"learning_rate": 1e-4})
    bad = write_run(tmp_path / "bad", HALF, base=[0.0] * 40, config={"learning_rate": 1e-2})
    study, said = compared(bad, good)
    assert [each.recipe.name for each in study.standings] == ["good", "bad"]
    assert study.standings[1].verdict == "better"
    assert study.standings[1].recipe.settings == {"learning_rate": 1e-2}
    assert "Highest: good, exact match 1.000 [0.912 to 1.000] on 40 common rows; better than the other." in said
    assert "what another seed would change is not known" in said
    assert "to the best −0.500: worse" in said


def test_a_key_that_only_runs_of_another_kind_have_counts_where_it_was_set(tmp_path: Path) -> None:
    rows = write_run(tmp_path / "rows", HALF)
    pairs = write_run(tmp_path / "pairs", RIGHT, config={"beta": 0.1, "ld_alpha": None, "pairs": "votes"})
    resolved = json.loads((pairs / "resolved_config.json").read_text())
    resolved["pairs"]["source"] = "dpo.yaml:3"
    (pairs / "resolved_config.json").write_text(json.dumps(resolved))
    study, _ = compared(rows, pairs)
    assert [each.recipe.settings for each in study.standings] == [{"pairs": "votes"}, {"pairs": None}]


def test_runs_that_differ_by_one_row_have_no_clear_difference(tmp_path: Path) -> None:
    write_run(tmp_path / "a", HALF, config={"learning_rate": 1e-4})
    write_run(tmp_path / "b", [1.0, *HALF[1:-1], 1.0], config={"learning_rate": 1e-2})
    study, said = compared(tmp_path)
    assert study.standings[1].verdict == "no clear difference"
    assert "no clear difference from the other" in said


def test_runs_that_differ_only_in_the_seed_are_one_recipe_with_both_errors(tmp_path: Path) -> None:
    for seed, right in enumerate((28, 30, 32)):
        write_run(tmp_path / f"seed-{seed}", shares(right, 40), base=[0.0] * 40, config={"seed": seed})
    study, said = compared(tmp_path)
    [standing] = study.standings
    assert standing.rows.value == pytest.approx(0.75)
    # Student: 4.303 times the standard deviation 0.05, over the root of 3.
    assert standing.seeds.ci95 == pytest.approx((0.75 - 0.1242, 0.75 + 0.1242), abs=1e-4)
    assert standing.gain is not None
    assert (standing.gain.agree, standing.gain.seeds.n) == (3, 3)
    assert "+0.750, ± 0.124 over seeds, ± 0.1" in said
    assert "3 of 3 agree" in said


def test_seeds_that_scatter_more_than_recipes_differ_leave_it_open(tmp_path: Path) -> None:
    for rate, rights in ((1e-3, (1000, 500)), (1e-4, (800, 300))):
        for seed, right in enumerate(rights):
            config = {"seed": seed, "learning_rate": rate}
            write_run(tmp_path / str(rate) / str(seed), shares(right, 1000), config=config)
    study, _ = compared(tmp_path)
    assert study.standings[1].behind is not None
    assert study.standings[1].behind.ci95 is not None
    assert study.standings[1].behind.ci95[0] > 0  # rows alone would call it better
    assert study.standings[1].verdict == "no clear difference"


def test_the_best_of_many_equal_runs_is_not_called_better(tmp_path: Path) -> None:
    """One of ten is ahead by six rows of 40: chosen from ten, that is chance."""
    for place in range(10):
        write_run(tmp_path / str(place), shares(26 if place == 3 else 20, 40), config={"learning_rate": place})
    study, _ = compared(tmp_path)
    assert {each.verdict for each in study.standings[1:]} == {"no clear difference"}


def test_what_cannot_be_compared_is_listed_with_the_reason(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_run(tmp_path / name, HALF, config={"learning_rate": ord(name)})
    write_run(tmp_path / "prompt", HALF, contract="c2")
    write_run(tmp_path / "rows", HALF, first_row=30)
    write_run(tmp_path / "stopped", HALF, status="preempted")
    (write_run(tmp_path / "silent", HALF) / "responses.json").unlink()
    (write_run(tmp_path / "unscored", HALF) / "items.jsonl").unlink()
    study, _ = compared(tmp_path)
    assert sorted(each.recipe.name for each in study.standings) == ["a", "b", "c"]
    reasons = {each.run.name: each.reason for each in study.apart}
    assert reasons == {
        "prompt": "another prompt (c2, the others c1): a difference would not come from the training alone",
        "rows": "other rows: it answered 10 of the 40 rows that the others answered",
        "stopped": "it is not finished (preempted); run its command again",
        "silent": "it has answered nothing yet; eval_responses.py asks it",
        "unscored": "its answers have no exact_match; eval_responses.py score measures them",
    }


def test_rows_that_ask_the_same_count_as_one_draw_as_in_the_runs_own_reports(tmp_path: Path) -> None:
    for name, values in (("a", RIGHT), ("b", HALF)):
        run = write_run(tmp_path / name, values, config={"learning_rate": ord(name)})
        answers = json.loads((run / "responses.json").read_text())
        for row, answer in enumerate(answers):
            answer["instruction"] = "Name the colour of the sky." if row < 20 else chr(97 + row % 26) * 9
        (run / "responses.json").write_text(json.dumps(answers))
    study, _ = compared(tmp_path)
    assert study.clusters is not None
    assert len(set(study.clusters)) == 21
    best = study.standings[0].rows.ci95
    assert best is not None
    assert best[0] < 0.85  # forty draws that are all right would give 0.912


def test_only_rows_that_all_answered_count(tmp_path: Path) -> None:
    write_run(tmp_path / "a", RIGHT, config={"learning_rate": 1})
    write_run(tmp_path / "b", RIGHT, config={"learning_rate": 2})
    write_run(tmp_path / "c", [0.0] * 40, first_row=10, config={"learning_rate": 3})
    study, _ = compared(tmp_path)
    assert len(study.questions) == 30


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda top: [top / "none"], "no such folder"),
        (lambda top: [top], "has no run"),
        (lambda top: [write_run(top / "a", HALF)], "a comparison needs two or more, and here is only"),
    ],
)
def test_too_little_to_compare_is_said(tmp_path: Path, make: Callable[[Path], list[Path]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare_runs(make(tmp_path), None, None, say=lambda text: None)


def test_a_run_alone_among_others_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no two that can be compared"):
        compared(write_run(tmp_path / "a", HALF), write_run(tmp_path / "b", HALF, status="failed"))


def test_the_script_takes_folders_as_words_and_writes_page_and_file(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a, b", RIGHT), write_run(tmp_path / "c", HALF, config={"learning_rate": 2})
    script.main([str(first), str(second), "--output_dir", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out" / "compared.json").read_text())
    assert [each["runs"] for each in found["recipes"]] == [["../a, b"], ["../c"]]
    assert found["rows"] == 40
    html = (tmp_path / "out" / "compared.html").read_text()
    assert "wrong &lt;b&gt;c&lt;/b&gt;" in html  # what a model wrote is text
    assert "<b>c</b>" not in html


def test_a_report_names_the_comparison_its_run_is_part_of(tmp_path: Path) -> None:
    first = write_run(tmp_path / "deep" / "a", RIGHT)
    write_run(tmp_path / "b", HALF, config={"learning_rate": 2})
    compared(tmp_path)
    found = find_comparison(first)
    assert found is not None
    assert (found.page, found.metric, found.rows) == ("../../compared.html", "exact_match", 40)
    assert found.recipe["runs"] == ["deep/a"]
    assert find_comparison(write_run(tmp_path / "later", HALF)) is None


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_page_fits_a_phone_and_a_desk(tmp_path: Path, chromium: "Browser", width: int) -> None:
    for name in ("a", "b", "with_a_very_long_name_that_nobody_can_break" * 3):
        write_run(tmp_path / name, HALF, config={"learning_rate": len(name)})
    compared(tmp_path)
    with visit(chromium, (tmp_path / "compared.html").as_uri(), width=width) as seen:
        assert seen.overflow() <= 0
        assert seen.problems == []


def test_the_card_of_one_of_several_seeds_says_what_the_others_gave(tmp_path: Path) -> None:
    for seed, right in enumerate((28, 30, 32)):
        write_run(tmp_path / f"seed-{seed}", shares(right, 40), config={"seed": seed})
    compared(tmp_path)
    assert seeds_text(read_evidence(tmp_path / "seed-1")) == [
        "One of 3 seeds of the same recipe: their mean exact match is 0.750, ± 0.124 over seeds, ± 0.135 over 40 rows "
        "(95 % intervals)."
    ]
    alone = write_run(tmp_path / "alone" / "run", HALF)
    assert seeds_text(read_evidence(alone)) == []
