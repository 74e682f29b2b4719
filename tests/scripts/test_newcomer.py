"""A newcomer with a CSV of 60 rows, who has read the README alone."""

import csv
import re
import subprocess
import time
from pathlib import Path

import pytest

from world.small_world import ROOT

COMMANDS, SECONDS = 4, 300
ROWS = [
    (f"What is the sum of {a} and {b}?", f"The sum of {a} and {b} is {a + b}.") for a in range(6) for b in range(10)
]


@pytest.mark.slow
def test_a_fresh_clone_reaches_a_report_by_the_commands_of_the_readme(tmp_path: Path) -> None:
    clone = tmp_path / "heed"
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{ROOT}", str(clone)], check=True)
    section = (clone / "README.md").read_text().partition("## Your CSV in one command\n")[2].partition("\n## ")[0]
    commands = [part for line in re.findall(r"^    (.+)$", section, re.M) for part in line.split(" && ")]
    with (clone / "my_rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("question", "answer"), *ROWS])

    began = time.monotonic()
    done = subprocess.run(["bash", "-ec", "\n".join(commands)], cwd=clone, capture_output=True, text=True)
    seconds = time.monotonic() - began

    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"\d+ of 12 questions answered exactly right \(before: \d+\)\.", done.stdout)
    assert (clone / "runs" / "mine" / "report.html").stat().st_size > 10_000
    assert len(commands) <= COMMANDS and seconds < SECONDS, f"{len(commands)} commands took {seconds:.0f} s"
