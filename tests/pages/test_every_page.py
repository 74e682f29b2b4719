"""Every page that Heed writes, as it is drawn: readable in both colours on phone and desk, usable by keyboard."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import inspect_data
from heed.data.records import Record
from heed.report import size, write_report
from heed.study import compare_runs
from heed.study import row_map as row_maps
from world.browser import DESK, FAINT, PHONE, USABLE, tabbed, visit
from world.compared_runs import write_run
from world.evaluation_folder import write_evaluation_folder
from world.small_world import TINY

if TYPE_CHECKING:
    from playwright.sync_api import Browser

LONG = "Donaudampfschifffahrtsgesellschaft" * 12


def report(folder: Path) -> Path:
    """With texts that are cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(size, "ROOM", 0)
        patch.setattr(size, "WHOLE", 0)
        return write_report(write_evaluation_folder(folder / LONG[:120]))


def empty_report(folder: Path) -> Path:
    """Of a run that has measured nothing yet."""
    run = write_evaluation_folder(folder / "run")
    for name in ("responses.json", "responses_base.json", "items.jsonl", "rows.jsonl", "comparison.json"):
        (run / name).unlink(missing_ok=True)
    for name in ("evaluation.json", "judge.jsonl", "judge_summary.json", "metrics.jsonl", "arena.json"):
        (run / name).unlink(missing_ok=True)
    return write_report(run)


def comparison(folder: Path) -> Path:
    for place, name in enumerate(("a", LONG[:100])):
        values = [1.0, 0.0] * (5 + place) + [0.0] * (20 - 2 * place)
        write_run(folder / name, values, config={"learning_rate": place, "data": LONG})
    compare_runs([folder], None, None, say=lambda text: None)
    return folder / "compared.html"


def inspector(folder: Path) -> Path:
    rows = [{"instruction": f"Say {word} {LONG if word == 'x' else ''}", "output": word} for word in ("x", "y", "z")]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 4))
    words = ["--model_name_or_path", str(TINY), "--prompt", "alpaca_short", "--data", str(folder / "rows.jsonl")]
    words += ["--output_dir", str(folder / "run"), "--html", str(folder / "rows.html"), "--max_length", "64"]
    inspect_data.main([*words, "--on_long_row", "cut_prompt", "--audit_allow", "cut_prompt,split_overlap,duplicate"])
    return folder / "rows.html"


def row_map(folder: Path) -> Path:
    texts = [("Name a colour.", LONG), ("Name a  colour.", "Red."), ("Add 2 and 2.", "4.")]
    records = [
        Record(
            row_id=row,
            place=f"{LONG}.jsonl:{row}",
            messages=({"role": "user", "content": question, "input": LONG}, {"role": "assistant", "content": answer}),
        )
        for row, (question, answer) in enumerate(texts)
    ]
    steps = [{"step": step, "rows": [0, 1, 2], "supervised": [1] * 3, "losses": [2.0, 0.5, 0.1]} for step in (1, 2)]
    (folder / "flight.jsonl").write_text("".join(json.dumps(each) + "\n" for each in steps))
    rows = row_maps.row_map(folder, records)
    return row_maps.write_map(folder, rows, row_maps.suspects(rows, records))


PAGES: dict[str, Callable[[Path], Path]] = {
    "report": report,
    "empty report": empty_report,
    "comparison": comparison,
    "inspector": inspector,
    "row map": row_map,
}


def test_faint_text_is_found(chromium: "Browser", tmp_path: Path) -> None:
    html = "<p style='color: #999'>faint</p><svg><text y='9' fill='#777' fill-opacity='1'>dark</text></svg><p>ink</p>"
    (tmp_path / "page.html").write_text(f"<body style='background: #fff'>{html}")
    with visit(chromium, (tmp_path / "page.html").as_uri()) as seen:
        assert seen.page.evaluate(FAINT) == ["2.85: faint", "4.48: dark"]


@pytest.mark.parametrize("name", PAGES)
def test_text_is_readable_where_it_is_drawn_and_all_is_reached_by_tab(
    chromium: "Browser", tmp_path: Path, name: str
) -> None:
    url = PAGES[name](tmp_path).as_uri()
    schemes: tuple[Any, ...] = ("light", "dark")
    for scheme in schemes:
        for width in (PHONE, DESK):
            with visit(chromium, url, width=width, scheme=scheme) as seen:
                for details in seen.page.locator("details").all():
                    details.evaluate("each => { each.open = true }")
                assert seen.page.evaluate(FAINT) == [], (scheme, width)
                assert seen.overflow() <= 0, (scheme, width)
                if (scheme, width) == ("light", DESK):
                    usable = seen.page.evaluate(USABLE)
                    reached, hidden = tabbed(seen.page)
                    assert hidden == []
                    assert reached >= usable > 0
