"""The report's part on whether a model reads the instruction."""

import re
from pathlib import Path
from typing import Any

from heed.measure.rows import Row, write_rows
from heed.report import write_report
from heed.report.evidence import read_evidence
from heed.report.measured import measured
from heed.report.notices import notices
from world.evaluation_folder import HOSTILE, row, write_evaluation_folder


def control(task: str, value: float, **changes: Any) -> Row:
    details = {"better": "neither", "own": 0.9, **changes.pop("details", {})}
    values = {"system": "controls", "name": "tuned", "ci95": (0.1, 0.9), "n": 60, "details": details}
    return row(**(values | {"task": task, "value": value} | changes))


def test_a_habit_is_stated_at_the_top_and_drawn_with_its_answers(tmp_path: Path) -> None:
    folder = write_evaluation_folder(tmp_path / "run")
    example = {"row_id": 3, "instruction": "Sing!", "input": HOSTILE, "output": "la", "model_response": HOSTILE}
    habit = {"habit": True, "example": example | {"score": 1.0}}
    left_out = {"n": 24, "notes": ("36 rows without an input",), "details": {"own": 0.5}}
    write_rows(
        folder,
        [control("no_input", 0.3, **left_out), control("own", 0.9), control("foreign", 0.8, details=habit, chance=0.1)],
    )
    write_report(folder)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", (folder / "report.html").read_text()))

    assert "Does it read the instruction?" in text
    assert (
        "Right with its own instruction 0.900 [0.100, 0.900], with a foreign one 0.800 [0.100, 0.900], without input "
        "0.300 [0.100, 0.900] (n = 24, of its own 0.500) (exact match, n = 60)."
    ) in text
    assert "Without its input (its own there: 0.500) 1 note 36 rows without an input 0.300" in text
    assert "It answers from habit: with another row's instruction, more than half" in text.replace("&#39;", "'")
    assert "Exact match is 0.900 with the instruction of the row, and 0.800 with that of another one (60 rows)." in text
    evidence = read_evidence(folder)
    assert ("tuned answers from habit", True) in [
        (each.title, each.grave) for each in notices(evidence, measured(evidence))
    ]
    assert HOSTILE not in (folder / "report.html").read_text()


def test_controls_are_not_a_benchmark(tmp_path: Path) -> None:
    folder = write_evaluation_folder(tmp_path / "run")
    write_rows(folder, [control("own", 0.9)])

    assert {each.system for each in measured(read_evidence(folder)).benchmarks} == {"MMLU"}
