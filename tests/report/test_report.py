import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from markupsafe import escape

from heed.errors import UserError
from heed.report import size, write_report, write_report_of
from heed.report.evidence import latest, read_evidence
from heed.report.headline import Headline, headline
from heed.report.measured import measured
from heed.report.missing import missing
from heed.report.results import Result, Value
from heed.report.svg import element, log_ticks, short, thinned, ticks
from heed.report.words import interval_text, number, signed
from world.browser import DESK, PHONE, visit
from world.evaluation_folder import HOSTILE, judging, row, write_evaluation_folder

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_evaluation_folder(tmp_path / "<demo>")


def html_of(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def text_of(folder: Path) -> str:
    """What the page says outside its data, scripts and style, without tags."""
    body = re.sub(r"<(script|style)\b.*?</\1>", "", html_of(folder), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def headline_of(folder: Path) -> Headline:
    evidence = read_evidence(folder)
    return headline(evidence, measured(evidence).primary)


def sentence(folder: Path) -> str:
    return headline_of(folder).sentence


def data_of(folder: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="answers">(.*?)</script>', html_of(folder))
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_no_text_of_a_model_becomes_markup(folder: Path) -> None:
    html = html_of(folder)

    assert "<script>alert" not in html and "<!--" not in html
    for sign in ("<i>", "<b>", "<u>", "<hr>", "<demo>", "<1>", "<Q>", "<expected>"):
        assert sign not in html
    assert len(re.findall(r"<script\b", html)) == 3  # theme, data, page
    assert data_of(folder)["rows"][2]["answers"][1]["text"] == HOSTILE


def test_the_page_has_no_inline_style_no_handler_and_no_address(folder: Path) -> None:
    html = html_of(folder)

    assert not re.search(r"<[^>]*\s(style|on\w+)=", html)
    addresses = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert all(each.startswith(("#", "data:image/svg")) for each in addresses) and len(addresses) > 5


def test_the_headline_is_the_judges_score_with_interval_and_count(folder: Path) -> None:
    assert sentence(folder) == (
        "On the test rows, tuned scores 68.3 of 100 by the judge openai:judge "
        "(95 % interval 10.0 to 100.0, n = 3), against 48.8 for base."
    )
    # Rows 0, 1 and 2 have both scores: 0, +90 and -80, so 3.3 on average.
    detail = headline_of(folder).detail
    assert detail.startswith("The paired difference on 3 rows that both cover (68.3 against 65.0) is +3.3 (")
    assert detail.endswith("; better on 1, equal on 1, worse on 1: no clear difference.")


@pytest.mark.parametrize("changes", [{"passed": False}, {"withheld": True}])
def test_a_judge_that_cannot_be_trusted_is_not_the_headline_and_is_shown_in_red(
    folder: Path, changes: dict[str, bool]
) -> None:
    (folder / "judge_summary.json").write_text(json.dumps(judging(**changes)))

    assert sentence(folder) == "2 of 4 questions answered exactly right (before: 2)."
    assert headline_of(folder).detail.startswith(
        "On the test rows, tuned has exact match 0.500 (95 % interval 0.000 to 1.000, n = 4), against 0.500 for base. "
    )
    said = "The judge failed its controls" if "passed" in changes else "The judge&#39;s score of tuned is withheld"
    assert re.search(rf'<div class="notice bad" role="note"><strong>{said}', html_of(folder))


def test_a_judge_that_only_compares_has_its_verdicts_and_its_controls_shown(folder: Path) -> None:
    summary = judging(passed=False)
    summary["judges"][0] |= {"scores": {}, "controls": None, "length_correlation": {}}
    summary["judges"][0]["pair_controls"] |= {"text": "against an empty answer it loses"}
    summary["judges"][0]["pairs"]["base vs tuned"] |= {"withheld": True, "failures": 1, "n_full": 2}
    summary["judges"][0]["pairs"]["base vs tuned"] |= {"failure_reasons": {"timeout": 1}, "win_rate": None}
    (folder / "judge_summary.json").write_text(json.dumps(summary))

    html = html_of(folder)

    assert "2 of 4 questions answered exactly right" in sentence(folder)
    assert "</strong>openai:judge: against an empty answer it loses.</div>" in html
    assert "</strong>openai:judge: 1 of 2 pairs failed (1 timeout).</div>" in html
    # Both orders are shown, the controls are not.
    [row] = [row for row in data_of(folder)["rows"] if "pairs" in row]
    said = data_of(folder)["said"]
    assert [(said[place], reason) for place, reason in row["pairs"]] == [
        ({"text": "openai:judge, side by side, tuned wins", "failed": False}, "right"),
        ({"text": "openai:judge, side by side, a tie", "failed": False}, "the same"),
    ]


def test_a_withheld_score_is_neither_a_number_nor_a_bar(folder: Path) -> None:
    (folder / "judge_summary.json").write_text(json.dumps(judging(withheld=True)))

    html = html_of(folder)

    assert "68.3" not in html
    assert html.count(">withheld</text>") == 1
    assert "1 verdict on tuned (25.0 %) failed (1 garbage)" in html


def test_a_metric_that_says_nothing_is_not_measured_and_not_withheld(folder: Path) -> None:
    nothing = row(name="tuned", metric="distinct_2", value=None, ci95=None, n=0)
    with (folder / "rows.jsonl").open("a") as file:
        file.write(json.dumps(asdict(nothing)) + "\n")

    text = text_of(folder)

    assert re.search("Different pairs of words different pairs of [^–]* – not measured not measured – 0", text)
    assert "withheld" not in text


def test_both_sides_of_a_comparison_have_the_same_digits(folder: Path) -> None:
    ratios = [row(name=name, metric="length_ratio", value=value, ci95=None) for name, value in SIDES]
    (folder / "rows.jsonl").write_text("".join(json.dumps(asdict(each)) + "\n" for each in ratios))
    comparison = json.loads((folder / "comparison.json").read_text())
    comparison["worse"] = [{"row_id": 1, "metric": "length_ratio", "a": 0.25, "b": 9.0}]
    (folder / "comparison.json").write_text(json.dumps(comparison))

    text = text_of(folder)

    assert "Length, to the reference&#39;s words of the answer to words of the reference; 1 is as long 0.8 1.2" in text
    assert "Length, to the reference&#39;s 0.2 9.0" in text
    for name, value in SIDES:
        items = json.loads((folder / "items.jsonl").read_text().splitlines()[0])
        with (folder / "items.jsonl").open("a") as file:
            file.write(json.dumps(items | {"name": name, "metrics": {"length_ratio": value}}) + "\n")
    assert {each["label"]: each["digits"] for each in data_of(folder)["measures"]} == {
        "Score by openai:judge": 0,
        "Exact match": 3,
        "Length, to the reference's": 1,
    }


SIDES = (("base", 0.75), ("tuned", 1.25))


def test_failures_are_a_bar_of_their_own(folder: Path) -> None:
    assert "<title>tuned: 1 failed</title>" in html_of(folder)


def test_a_row_that_got_worse_is_listed_once_by_its_largest_loss(folder: Path) -> None:
    comparison = json.loads((folder / "comparison.json").read_text())
    comparison["worse"].append({"row_id": 2, "metric": "token_f1", "a": 0.9, "b": 0.5})
    (folder / "comparison.json").write_text(json.dumps(comparison))

    text = text_of(folder)

    assert "1 row, each with the measure that it lost most by; what base had right comes first. " in text
    assert "2 Which bird hunts at night? Exact match 1.000 0.000" in text and "Token F1" not in text


def test_what_was_measured_on_a_part_of_the_rows_is_shown_separately(folder: Path) -> None:
    left = row(name="tuned", task="test, those given away in training left out", n=3, value=0.25, ci95=(0.0, 1.0))
    with (folder / "rows.jsonl").open("a") as file:
        file.write(json.dumps(asdict(left)) + "\n")

    before, _, after = text_of(folder).partition("The same without rows that training gave away")

    assert "0.250" not in before and "0.250" in after


def test_benchmarks_are_drawn_with_the_score_of_guessing(folder: Path) -> None:
    text = text_of(folder)

    assert "mmlu&lt;1&gt; acc 0.310 0.300 to 0.320 – 0.250" in text
    assert html_of(folder).count('class="chance"') == 1


def test_the_arena_is_shown_with_its_ratings(folder: Path) -> None:
    standing = {"model": "tuned", "rating": 1095.4, "ci95": [1040.0, 1150.0], "wins": 29, "ties": 1, "both_bad": 1}
    board = {"who": "people", "votes": 40, "standings": [standing | {"losses": 9}]}
    (folder / "arena.json").write_text(json.dumps({"leaderboards": [board], "agreement": []}))

    assert "people, 40 votes" in text_of(folder)
    assert "tuned 1,095 1,040 to 1,150" in text_of(folder) and "29 / 2 / 9" in text_of(folder)


def test_losses_that_are_not_numbers_are_counted(folder: Path) -> None:
    assert "1 loss was not finite and is not drawn." in text_of(folder)


def test_rows_left_out_are_counted_by_reason(folder: Path) -> None:
    assert "Left out: field &#39;output&#39;: is empty 2 Left out: &lt;i&gt;odd&lt;/i&gt; 1" in text_of(folder)


def test_every_file_may_be_absent_and_is_then_listed_with_what_makes_it(folder: Path) -> None:
    for path in sorted(folder.iterdir(), reverse=True):
        path.unlink()
        text = text_of(folder)
        if path.name not in ("report.html", "rejected.jsonl", "responses_base.json"):
            assert f" {path.name} " in text[text.index("These files are not there") :]
    assert "Nothing has been measured yet ." in text
    assert "python train_sft.py --config CONFIG --output_dir RUN" in text


def made_by(folder: Path) -> dict[str, str]:
    """Absent file -> the command that makes it."""
    return {each.file: each.command for each in missing(read_evidence(folder))}


def test_a_missing_file_is_made_by_a_command_that_fits_the_run(tmp_path: Path) -> None:
    folder = write_evaluation_folder(tmp_path / "run")
    for name in ("items.jsonl", "judge.jsonl", "comparison.json"):
        (folder / name).unlink()
    script = "python eval_responses.py"
    assert made_by(folder) == {
        "responses_controls.json": f"{script} --model_name_or_path 'runs/<demo>' --output_dir {folder}",
        "items.jsonl": f"{script} score --output_dir {folder}",
        "comparison.json": f"{script} --model_name_or_path 'runs/<demo>' --output_dir {folder} --compare_with_base",
        "judge.jsonl": f"{script} judge --output_dir {folder} --judge_backend BACKEND --judge_model JUDGE",
    }
    (folder / "evaluation.json").unlink()
    (folder / "responses.json").unlink()
    assert made_by(folder)["evaluation.json"] == f"{script} --model_name_or_path {folder}"
    assert made_by(folder)["items.jsonl"] == made_by(folder)["evaluation.json"]
    run = json.loads((folder / "run.json").read_text())
    for splits, words in (({"validation": 4}, " --split validation"), ({}, " --data ROWS")):
        (folder / "run.json").write_text(json.dumps(run | {"splits": splits | {"train": 30, "test": 0}}))
        assert made_by(folder)["responses.json"] == f"{script} --model_name_or_path {folder}{words}"


def test_answers_of_other_tools_are_scored_again_from_their_own_file(tmp_path: Path) -> None:
    folder = write_evaluation_folder(tmp_path / "taken")
    asked = json.loads((folder / "evaluation.json").read_text())
    system = asked["systems"]["tuned"] | {"model": "theirs.json", "responses": "theirs.json"}
    (folder / "evaluation.json").write_text(
        json.dumps(asked | {"engine": None, "split": None, "systems": {"model": system}})
    )
    (folder / "responses.json").rename(folder / "theirs.json")
    for name in ("run.json", "rows.jsonl", "comparison.json"):
        (folder / name).unlink()
    found = made_by(folder)
    assert found["rows.jsonl"] == f"python eval_responses.py score --output_dir {folder}"
    files = f"--responses {folder}/theirs.json --output_dir {folder}"
    assert found["comparison.json"] == f"python eval_responses.py {files} --compare_with OTHER"
    assert not {"responses.json", "responses_controls.json"} & set(found)  # nobody can ask again


def test_training_alone_makes_a_report(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name not in ("run.json", "metrics.jsonl"):
            path.unlink()

    assert sentence(folder) == "Validation loss is 1.500 after 1 epoch (4 rows), from 3.000."


def test_a_report_needs_no_model_library() -> None:
    check = (
        "import sys, heed.report; sys.exit(any(each in sys.modules for each in ('torch', 'transformers', 'datasets')))"
    )

    assert subprocess.run([sys.executable, "-c", check], env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode == 0


def test_no_rows_make_a_page_too(folder: Path) -> None:
    for name in ("responses.json", "responses_base.json"):
        (folder / name).unlink()
    for name in ("items.jsonl", "judge.jsonl", "rows.jsonl", "metrics.jsonl"):
        (folder / name).write_text("")

    assert data_of(folder)["rows"] == []


def test_answers_changed_after_they_were_measured_are_reported(folder: Path) -> None:
    (folder / "responses.json").write_text((folder / "responses.json").read_text().replace("green", "Green"))

    assert "responses.json has changed since it was measured" in text_of(folder)


def test_a_damaged_file_is_named_and_no_page_is_written(folder: Path) -> None:
    with (folder / "judge.jsonl").open("a") as file:
        file.write('{"kind": "sco')

    with pytest.raises(UserError, match=r"judge\.jsonl:12: damaged"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_a_line_separator_inside_a_text_ends_no_line(folder: Path) -> None:
    line = json.dumps({"step": 1, "epoch": 1.0, "row_id": 0, "model_response": "a\u2028b"}, ensure_ascii=False)
    (folder / "samples.jsonl").write_text(line + "\n", encoding="utf-8")

    assert read_evidence(folder).samples[0]["model_response"] == "a\u2028b"


def test_a_verdict_asked_for_again_replaces_the_failed_one() -> None:
    asked = {"kind": "score", "judge": "j", "prompt": "p", "name": "tuned", "row_id": 1, "control": None}

    assert latest([asked | {"score": None}, asked | {"row_id": 2, "score": 7}, asked | {"score": 80}]) == [
        asked | {"score": 80},
        asked | {"row_id": 2, "score": 7},
    ]


LOST = "Outcome: right with base, wrong with tuned"


def test_rows_can_be_found_by_outcome_finish_flag_and_failure(folder: Path) -> None:
    data = data_of(folder)

    third = [data["filters"][place]["tag"] for place in data["rows"][2]["tags"]]
    assert third == ["Finish reason: base eos", "Finish reason: tuned eos", "Outcome: worse", LOST]
    assert {each["tag"]: each["count"] for each in data["filters"]} == {
        "Finish reason: base eos": 3,
        "Finish reason: base length": 1,
        "Finish reason: tuned eos": 3,
        "Finish reason: tuned length": 1,
        "Flag: seen_in_training": 1,
        "Judge failed: garbage": 1,
        "Outcome: better": 1,
        "Outcome: equal": 1,
        LOST: 1,
        "Outcome: worse": 1,
        "Side by side: tie": 1,
        "Side by side: tuned wins": 1,
    }
    # The judge and exact match: 100 and 1.0 agree; 95 and 1.0 differ by 5; 10 and 0.0 by 10; the last has no score.
    assert [row.get("disputed") for row in data["rows"]] == [0, 5, 10, None]


def test_measures_are_written_to_six_decimals(folder: Path) -> None:
    items = folder / "items.jsonl"
    items.write_text(items.read_text().replace('"exact_match": 1.0', f'"exact_match": {2 / 3}'))
    assert {row["values"][-1][-1] for row in data_of(folder)["rows"]} == {0.666667, 0.0}


def test_a_difference_without_a_better_side_is_called_neither_better_nor_worse(folder: Path) -> None:
    words = re.search(r"Length, to the reference(.*)", text_of(folder))
    assert words is not None and "−1.0" in words[1]
    assert re.findall(r"better|worse|no clear", words[1].partition("−1.5 to −0.5")[0]) == []


def test_numbers_are_written_as_people_read_them() -> None:
    assert [number(value, wide=False) for value in (0.5, None, float("nan"))] == [
        "0.500",
        "not measured",
        "not a number",
    ]
    assert [number(value, wide=True) for value in (0.5, 61.25, 1234.5)] == ["0.5", "61.2", "1,234.5"]
    assert [signed(value, wide=False) for value in (0.25, -0.25, -0.0001)] == ["+0.250", "−0.250", "0.000"]
    assert interval_text((-1.0, 20.0), wide=True, with_sign=True) == "−1.0 to +20.0"


def test_a_scale_covers_its_values_and_their_intervals() -> None:
    def result(value: float, ci95: tuple[float, float] | None) -> Result:
        values = [Value(name="tuned", value=value, ci95=ci95, n=3)]
        return Result(system="m", task="t", metric="x", values=values, difference=None, higher_is_better=True)

    assert [result(0.5, None).high, result(0.99, (0.9, 1.01)).high, result(61.0, None).high] == [1.0, 100.0, 100.0]
    assert result(-0.5, (-0.7, -0.2)).low == -0.7


def test_ticks_are_round_and_enclose_the_values() -> None:
    assert ticks(0.06, 0.7, 5) == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert ticks(3.0, 3.0, 5)[0] <= 3.0 <= ticks(3.0, 3.0, 5)[-1]
    assert log_ticks(0.018, 0.76) == [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
    assert [short(value) for value in (0.05, 8750, 35000, 210000, 1_500_000)] == ["0.05", "8750", "35k", "210k", "1.5M"]
    assert thinned([(n, 0) for n in range(10)], 4) == [(0, 0), (3, 0), (6, 0), (9, 0)]


def test_text_and_attributes_of_a_drawing_are_escaped() -> None:
    assert element("text", "<&", class_='a"b', x=1.0, y=None) == '<text class="a&#34;b" x="1">&lt;&amp;</text>'


@pytest.mark.parametrize(("width", "scheme"), [(DESK, "light"), (PHONE, "dark")])
def test_the_page_opens_from_a_file_alone_and_fits(chromium: "Browser", folder: Path, width: int, scheme: Any) -> None:
    url = write_report(folder).as_uri()

    with visit(chromium, url, width=width, scheme=scheme) as seen:
        assert seen.page.title() == "runs/<demo> · Heed report"
        assert seen.requests == [url]
        assert seen.problems == []
        assert seen.overflow() <= 0
        levels = seen.page.locator("h1, h2, h3, h4").evaluate_all("all => all.map((each) => Number(each.tagName[1]))")
        assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))


def test_answers_are_filtered_searched_ordered_and_shown_as_text(chromium: "Browser", folder: Path) -> None:
    with visit(chromium, write_report(folder).as_uri()) as seen:
        page = seen.page

        def shown() -> list[str]:
            return page.locator(".card h3").all_inner_texts()

        assert shown() == ["Row 2", "Row 1", "Row 0", "Row 3"]  # worst first, the failed verdict last
        assert HOSTILE in page.locator(".card").first.text_content()  # type: ignore[operator]
        page.get_by_label("Show").select_option("Outcome: worse")
        assert shown() == ["Row 2"]
        page.get_by_label("Show").select_option("")
        page.get_by_text("Most disputed").click()
        assert shown() == ["Row 2", "Row 1", "Row 0", "Row 3"]
        page.get_by_text("By row", exact=True).click()
        assert shown() == ["Row 0", "Row 1", "Row 2", "Row 3"]
        page.get_by_label("Measure").select_option("Exact match")
        page.get_by_text("Best first").click()
        assert shown() == ["Row 0", "Row 1", "Row 2", "Row 3"]
        page.get_by_label("Search").fill("NIGHT <script>")
        page.locator("#status", has_text="1 of 4 rows").wait_for()
        assert shown() == ["Row 2"]
        assert page.locator(".card mark").all_inner_texts() == ["night", "<script>"]
        page.get_by_label("Search").fill("no such words")
        page.locator("#status", has_text="0 of 4 rows").wait_for()
        assert seen.problems == []


def test_thousands_of_rows_are_shown_a_page_at_a_time(chromium: "Browser", folder: Path) -> None:
    rows = json.loads((folder / "responses.json").read_text())
    many = [
        rows[0] | {"row_id": number, "model_response": f"answer {number} " + "word " * 400 + f"last{number}"}
        for number in range(3000)
    ]
    (folder / "responses.json").write_text(json.dumps(many))

    with visit(chromium, write_report(folder).as_uri()) as seen:
        page = seen.page
        page.get_by_text("By row", exact=True).click()
        assert page.locator(".card").count() == 10
        page.get_by_role("button", name="Next").press("Enter")
        assert page.locator(".card h3").first.inner_text() == "Row 10"
        assert page.get_by_text("Page 2 of 300").is_visible()
        page.get_by_role("button", name="Show all 2,0").first.click()
        assert len(page.locator(".side.is-ours .text").first.inner_text()) > 2000
        page.get_by_label("Search").fill("last2345")  # which is only in the part that is folded away
        page.locator("#status", has_text="1 of 3,000 rows").wait_for(timeout=2000)
        assert page.locator(".side.is-ours mark").all_inner_texts() == ["last2345"]
        assert page.get_by_role("button", name="Next").is_disabled()


def test_a_cut_is_counted_on_the_page_and_in_the_terminal(
    chromium: "Browser", folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(size, "ROOM", 2_000)
    monkeypatch.setattr(size, "WHOLE", 0)
    evidence, said = read_evidence(folder), list[str]()

    page = write_report_of(evidence, measured(evidence), said.append)

    title, text = (
        "Long texts are cut in the report",
        "To keep the page small, 13 texts in 4 of 4 rows are cut after 20 characters (10 of them, judges' reasons, are "
        "left out), and search sees no more of them. Whole texts: responses_base.json, responses.json, judge.jsonl.",
    )
    assert said == [f"! {title}: {text}"]
    assert f"<strong>{title}</strong>{escape(text)}</div>" in page.read_text(encoding="utf-8")
    with visit(chromium, page.as_uri()) as seen:
        card = seen.page.locator(".card").first
        assert HOSTILE[:20] + " …" in card.locator(".side.is-ours").inner_text()
        assert f"Only the first 20 of {len(HOSTILE)} characters are here" in card.inner_text()
        assert re.search(r"openai:judge:\s+…\s+None of 17 characters are here", card.inner_text())
        seen.page.get_by_label("Search").fill("night")  # beyond the cut
        seen.page.locator("#status", has_text="0 of 4 rows").wait_for()
        assert seen.problems == []
