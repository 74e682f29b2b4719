"""kill -9 at any file that a script opens, renames or removes: old or new files, and the same command ends."""

from pathlib import Path

import pytest

from faults.lab import Lab
from faults.scripts import Bench, answering, inspecting
from world.stub_judge import serve as serve_judge

FEW, MANY = 2, 20


@pytest.mark.parametrize("points", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_a_killed_evaluation_leaves_old_or_new_files_and_the_same_command_ends(tmp_path: Path, points: int) -> None:
    lab = Lab(tmp_path, seed=1)
    with serve_judge(lambda body: '{"reasoning": "as asked", "score": 50}') as stub:
        assert Bench(lab, answering(lab, stub.url)).killed_at_changes(points) == [True] * points


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_killed_exports_and_preparations_leave_old_or_new_files_and_the_same_command_ends(
    tmp_path: Path, number: int
) -> None:
    lab = Lab(tmp_path, seed=1)
    assert Bench(lab, inspecting(lab, 300)[number]).killed_at_changes(MANY) == [True] * MANY
