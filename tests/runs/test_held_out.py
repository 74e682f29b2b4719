"""Pairs on what a run is evaluated on."""

import pytest

from heed.errors import UserError
from heed.runs.held_out import HeldOut


@pytest.mark.parametrize("asked", [(3, "Say y."), (None, "say  X."), (1, "Say x.")])
def test_a_question_is_known_by_its_number_or_by_its_words_and_refused_unless_its_split_is_allowed(
    asked: tuple[object, str],
) -> None:
    evaluated = HeldOut(known={"train": {1, 2}, "test": {3, "say x."}, "validation": set()}, records=[])
    questions = [(2, "Say z."), asked, ("3", "Say z.")]
    with pytest.raises(UserError, match=r"votes: 1 of 3 pairs are about test rows .* --allow_held_out test$"):
        evaluated.refuse(questions, ["validation"], "votes", print)
    said: list[str] = []
    evaluated.refuse(questions, ["test"], "votes", said.append)
    assert said == ["          1 pair about test rows of the run, as allowed"]
