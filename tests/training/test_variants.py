"""One command, several runs."""

import pytest

from heed import config
from heed.data.records import Record
from heed.data.splits import share_of
from heed.errors import UserError
from heed.training.arguments import read_config
from heed.training.variants import shares, variants

WORDS = ["--model_name_or_path", "m", "--data", "d.json", "--output_dir", "out", "--compare_with_base", "true"]


def made(*words: str) -> list[tuple[str, int, float]]:
    line = config.parse_command_line([*WORDS, *words], flags=())
    found = variants(read_config(line), line)
    told = [read_config(each.command_line) for each in found]
    assert [each.ours.seeds for each in told] == [[] for _ in told]
    assert [each.ours.learning_curve for each in told] == [0 for _ in told]
    folders = [str(each.settings["output_dir"].value) for each in told]
    return [
        (folder, each.settings["seed"].value, each.ours.train_share) for folder, each in zip(folders, told, strict=True)
    ]


def test_each_seed_and_share_is_a_run_in_its_own_folder() -> None:
    assert made("--seeds", "0,7") == [("out/seed-0", 0, 1.0), ("out/seed-7", 7, 1.0)]
    assert [each[0] for each in made("--learning-curve", "4", "--seeds", "1,2")] == [
        "out/share-0.0625/seed-1",
        "out/share-0.0625/seed-2",
        "out/share-0.1575/seed-1",
        "out/share-0.1575/seed-2",
        "out/share-0.3969/seed-1",
        "out/share-0.3969/seed-2",
        "out/share-1/seed-1",
        "out/share-1/seed-2",
    ]
    assert shares(5) == [0.0625, 0.125, 0.25, 0.5, 1.0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0"], "give seed: 0, or several to compare"),
        (["--seeds", "0,0"], "names a seed twice"),
        (["--seeds", "0,1", "--seed", "3"], "both on the command line"),
        (["--seeds", "0,1", "--push_to_hub", "true"], "several runs would overwrite each other's model"),
        (["--seeds", "0,1", "--resume", "never"], "is about one run"),
        (["--learning_curve", "3"], "3 points are too few; give 4 or more"),
        (["--learning_curve", "5", "--train_share", "0.5"], "the curve chooses its own shares"),
    ],
)
def test_what_is_at_odds_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        made(*words)


def records(count: int) -> list[Record]:
    return [
        Record(
            row_id=row,
            place=f"f:{row}",
            messages=({"role": "user", "content": str(row)}, {"role": "assistant", "content": "a"}),
        )
        for row in range(count)
    ]


def test_a_smaller_share_is_part_of_every_larger_one_and_keeps_the_order() -> None:
    rows = records(200)
    chosen = [[record.row_id for record in share_of(rows, share)] for share in (0.0625, 0.25, 1.0)]
    assert [len(each) for each in chosen] == [12, 50, 200]
    assert set(chosen[0]) < set(chosen[1]) < set(chosen[2])
    assert all(each == sorted(each) for each in chosen)
    again = share_of(rows[::-1], 0.25)  # the rows decide, not their order
    assert {record.row_id for record in again} == set(chosen[1])


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, 0.001])
def test_an_impossible_share_is_refused(share: float) -> None:
    with pytest.raises(UserError, match="train_share"):
        share_of(records(20), share)
