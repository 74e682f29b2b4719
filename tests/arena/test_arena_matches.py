from collections import Counter
from pathlib import Path

from heed.arena.matches import Match, Matches, Question, Side, pairs_of, vote_of
from heed.arena.votes import Vote, VoteFile

QUESTIONS = [Question(row_id=row, messages=({"role": "user", "content": f"Say {row}."},)) for row in range(4)]
EVERYTHING: dict[str, set[int | str]] = {"base": {0, 1, 2, 3}, "tuned": {0, 1, 2, 3}}


def matches(folder: Path, answered: dict[str, set[int | str]] = EVERYTHING) -> tuple[Matches, VoteFile]:
    file = VoteFile(folder / "votes.jsonl")
    return Matches(QUESTIONS, pairs_of(answered), file, seed=0), file


def cast(match: Match, voter: str, side: Side = "left") -> Vote:
    return vote_of(match, voter=voter, side=side, left="L", right="R", live=False, note="", time="now", seconds=1.0)


def found(arena: Matches, voter: str) -> Match:
    match = arena.next(voter)
    assert match is not None
    return match


def test_a_voter_sees_every_pair_once_and_then_none(tmp_path: Path) -> None:
    arena, file = matches(tmp_path)
    seen = []
    for done in range(4):
        assert arena.progress("Ada") == (done, 4)
        match = found(arena, "Ada")
        seen.append(match.key.item)
        file.add(cast(match, "Ada"))

    assert sorted(seen) == [0, 1, 2, 3] and arena.next("Ada") is None and arena.next("Bob") is not None


def test_pairs_with_the_fewest_votes_come_first_and_people_who_come_at_once_get_different_ones(tmp_path: Path) -> None:
    arena, file = matches(tmp_path)
    shown = [found(arena, voter) for voter in ("Ada", "Bob", "Cyd", "Dan")]
    assert sorted(match.key.item for match in shown) == [0, 1, 2, 3]
    for voter, match in zip(("Ada", "Bob", "Cyd"), shown, strict=False):
        file.add(cast(match, voter))

    next_ones = [found(arena, voter) for voter in ("Ada", "Bob", "Cyd")]

    assert len({match.key for match in next_ones}) == 3


def test_a_reload_shows_the_same_pair_on_the_same_sides(tmp_path: Path) -> None:
    arena, _ = matches(tmp_path)
    first = found(arena, "Ada")
    assert all(arena.next("Ada") is first for _ in range(9))


def test_a_skipped_pair_comes_last(tmp_path: Path) -> None:
    arena, file = matches(tmp_path)
    skipped = found(arena, "Ada")
    arena.skip("Ada", skipped)
    for _ in range(3):
        match = found(arena, "Ada")
        assert match.key != skipped.key
        file.add(cast(match, "Ada"))
    assert found(arena, "Ada").key == skipped.key


def test_sides_are_drawn(tmp_path: Path) -> None:
    arena, _ = matches(tmp_path)
    left = Counter(found(arena, str(voter)).left for voter in range(200))
    assert 70 <= left["base"] <= 130


def test_a_judges_votes_do_not_move_a_pair_back(tmp_path: Path) -> None:
    arena, file = matches(tmp_path, {"base": {0, 1}, "tuned": {0, 1}})
    for judge in range(5):
        file.add(Vote(time=None, voter=f"judge:{judge}", a="base", b="tuned", winner="a", first=None, row_id=0))
    file.add(Vote(time=None, voter="Bob", a="base", b="tuned", winner="a", first="a", row_id=1))

    assert found(arena, "Ada").question.row_id == 0


def test_a_question_goes_to_the_models_that_met_least_and_once_to_each_pair(tmp_path: Path) -> None:
    arena, file = matches(tmp_path, {})
    models = ["x", "y", "z"]
    asked = []
    for _ in range(3):
        match = arena.typed("Ada", "What?", models)
        assert match is not None and match.question.row_id is None
        asked.append((match.key.a, match.key.b))
        file.add(cast(match, "Ada"))

    assert sorted(asked) == [("x", "y"), ("x", "z"), ("y", "z")]
    assert arena.typed("Ada", "What?", models) is None and arena.typed("Ada", "Why?", models) is not None


def test_only_rows_that_both_answered_are_pairs() -> None:
    pairs = pairs_of({"b": {1, 2}, "a": {2, 3}, "c": {2}})
    assert [tuple(key) for key in pairs] == [(2, "a", "b"), (2, "a", "c"), (2, "b", "c")]


def test_a_vote_for_a_side_names_the_model_on_that_side() -> None:
    match = Match(question=QUESTIONS[2], left="tuned", right="base")

    def line(side: Side) -> Vote:
        return vote_of(match, voter="Ada", side=side, left="T", right="B", live=True, note="n", time="t", seconds=1.234)

    sides: tuple[Side, ...] = ("left", "right", "tie", "both_bad")
    assert [line(side).preferred for side in sides] == ["tuned", "base", None, None]
    vote = line("left")
    assert (vote.a, vote.b, vote.winner, vote.first, vote.row_id, vote.seconds) == ("base", "tuned", "b", "b", 2, 1.23)
    assert vote.responses == {"a": "B", "b": "T"} and vote.prompt == "Say 2."
