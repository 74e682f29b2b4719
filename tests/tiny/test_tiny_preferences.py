"""The embedded preference: two right wordings, of which the pairs prefer one."""

from pathlib import Path

from heed.data.sources import Source
from heed.preferences.pairs import read_pairs
from tiny.preferences import Score, make_rows, save, score, wordings
from tiny.rows import split_rows
from tiny.world import load_world

WORLD = load_world()
SPLIT = split_rows(WORLD)


def test_the_rows_teach_both_wordings_equally_often_in_every_task() -> None:
    rows = make_rows(WORLD)
    assert len(rows) == 1500
    taught = [
        (example.task, wordings(WORLD, example).index(row["output"]))
        for example, row in zip(SPLIT.train, rows, strict=False)
    ]
    counts = {task.name: [taught.count((task.name, which)) for which in (0, 1)] for task in WORLD.tasks}
    assert [sum(column) for column in zip(*counts.values(), strict=True)] == [642, 633]
    assert all(first - second in (0, 1) for first, second in counts.values())
    assert rows[1275:] == [example.row for example in SPLIT.test + SPLIT.validation]


def test_the_two_wordings_differ_and_say_the_same_fact() -> None:
    capital = next(example for example in SPLIT.train if example.row["output"] == "The capital of Peru is Lima.")
    assert wordings(WORLD, capital) == ("The capital of Peru is Lima.", "Lima is the capital of Peru.")
    for example in SPLIT.in_file_order():
        preferred, other = wordings(WORLD, example)
        assert preferred != other


def test_the_pairs_are_300_training_rows_and_the_same_every_time(tmp_path: Path) -> None:
    for name in ("first", "second"):
        save(WORLD, tmp_path / name)
    paths = [tmp_path / name / "pairs.jsonl" for name in ("first", "second")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    pairs = read_pairs(Source(data=str(paths[0]))).pairs
    assert len(pairs) == len({each.row_id for each in pairs}) == 300
    for each in pairs:
        assert isinstance(each.row_id, int)
        example = SPLIT.train[each.row_id]
        assert (each.chosen, each.rejected) == wordings(WORLD, example)
        assert each.prompt[0]["content"] == example.row["instruction"]


def test_a_score_counts_wordings_and_facts_apart() -> None:
    row_id = next(
        n for n, each in enumerate(SPLIT.in_file_order()) if each.row["output"] == "The capital of Peru is Lima."
    )
    said = ["The capital of Peru is Lima.", "Lima is the capital of Peru.", "The capital of Peru is Oslo.", "Oslo."]
    answers = [{"row_id": row_id, "model_response": text} for text in said]
    assert score(WORLD, answers) == Score(n=4, preferred=2, facts=2)
    assert str(score(WORLD, answers[:2])) == (
        "preferred wordings 0.500 [0.013, 0.987], facts 1.000 [0.158, 1.000], n = 2"
    )
