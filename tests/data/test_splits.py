import re
from collections import Counter
from typing import Any

import pytest

from heed.config import SftConfig
from heed.data.reading import splitting
from heed.data.records import Record
from heed.data.splits import SPLITS, row_ids, split_named, split_records
from heed.errors import UserError

SHARES = [0.85, 0.10, 0.05]


def records(count: int, split: str | None = None) -> list[Record]:
    return [
        Record(
            row_id=number,
            place=f"rows.json:{number}",
            messages=({"role": "user", "content": f"Question {number}"}, {"role": "assistant", "content": "Yes."}),
            source_split=split,
        )
        for number in range(count)
    ]


def test_1100_rows_split_by_position_into_935_110_and_55() -> None:
    ids = row_ids(split_records(records(1100), how="position", shares=SHARES, source_splits={}))
    assert ids["train"] == list(range(935))
    assert ids["test"] == list(range(935, 1045))
    assert ids["validation"] == list(range(1045, 1100))


def test_shuffled_rows_of_a_sorted_file_are_held_out_from_every_part_in_exact_shares() -> None:
    rows = records(1000)
    splits = split_records(rows, how="shuffled", shares=SHARES, source_splits={})
    assert [len(splits[name]) for name in SPLITS] == [850, 100, 50]
    quarters = Counter(record.row_id * 4 // 1000 for record in splits["test"])
    assert sorted(quarters) == [0, 1, 2, 3] and min(quarters.values()) > 10
    again = split_records(rows[::-1], how="shuffled", shares=SHARES, source_splits={})
    assert sorted(row_ids(again)["test"]) == row_ids(splits)["test"]


@pytest.mark.parametrize("how", ["shuffled", "hash"])
def test_rows_of_one_prompt_are_on_one_side(how: Any) -> None:
    asked: list[Any] = [record.messages[0] for record in records(50)]
    answered: list[Any] = [{"role": "assistant", "content": str(number)} for number in range(200)]
    rows = [
        Record(row_id=number, place="", messages=(asked[number % 50], answer)) for number, answer in enumerate(answered)
    ]
    splits = split_records(rows, how=how, shares=[0.5, 0.25, 0.25], source_splits={})
    texts = [{record.instruction for record in splits[name]} for name in SPLITS]
    assert all(texts) and sum(map(len, texts)) == 50


@pytest.mark.parametrize(("count", "share"), [(100, 0.07), (100, 0.29), (1000, 0.57)])
def test_shares_that_floats_cannot_express_still_split_exactly(count: int, share: float) -> None:
    splits = split_records(records(count), how="position", shares=[share, 1 - share, 0.0], source_splits={})
    assert len(splits["train"]) == round(count * share)


def test_hash_splits_do_not_depend_on_order_or_on_other_rows() -> None:
    rows = records(2000)
    places = split_records(rows, how="hash", shares=SHARES, source_splits={})
    again = split_records(rows[::-1][:1500], how="hash", shares=SHARES, source_splits={})
    for name in SPLITS:
        assert set(row_ids(again)[name]) <= set(row_ids(places)[name])
    sizes = Counter({name: len(places[name]) for name in SPLITS})
    assert 1640 < sizes["train"] < 1760 and 150 < sizes["test"] < 250 and 60 < sizes["validation"] < 140


def test_equal_rows_are_on_one_side() -> None:
    twins = [Record(row_id=number, place="", messages=records(20)[number % 20].messages) for number in range(200)]
    splits = split_records(twins, how="hash", shares=[0.5, 0.25, 0.25], source_splits={})
    texts = [{record.instruction for record in splits[name]} for name in SPLITS]
    assert not (texts[0] & texts[1] or texts[0] & texts[2] or texts[1] & texts[2])


def test_the_source_names_its_splits_and_may_be_renamed() -> None:
    rows = records(3, "train") + records(2, "test")
    splits = split_records(rows, how="source", shares=(), source_splits={})
    assert [len(splits[name]) for name in SPLITS] == [3, 2, 0]
    renamed = split_records(rows, how="source", shares=(), source_splits={"train": "train", "validation": "test"})
    assert [len(renamed[name]) for name in SPLITS] == [3, 0, 2]


def test_impossible_splits_say_why() -> None:
    with pytest.raises(UserError, match="the source has no split 'dev'; it has train"):
        split_records(records(3, "train"), how="source", shares=(), source_splits={"validation": "dev"})
    with pytest.raises(UserError, match="the source does not name splits"):
        split_records(records(3), how="source", shares=(), source_splits={})
    with pytest.raises(UserError, match=r"must be three shares .* that sum to 1"):
        split_records(records(3), how="position", shares=[0.9, 0.2, 0.1], source_splits={})
    with pytest.raises(UserError, match="the train split is empty"):
        split_records(records(3), how="position", shares=[0.0, 0.5, 0.5], source_splits={})


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.json", "train"),
        ("train-00000-of-00003.parquet", "train"),
        ("test-00000-of-00001.parquet", "test"),
        ("my_test.csv", "test"),
        ("validation.jsonl.gz", "validation"),
        ("val.json", "validation"),
        ("valid-1.csv", "validation"),
        ("DEV.tsv.csv", "validation"),
        ("alpaca_eval.json", "validation"),
        ("rows_test_v2.json", "test"),
        ("rows.test.json", "test"),
        ("testset.json", "test"),
        ("trainset.csv", "train"),
        ("TestData2.json", "test"),
        ("myTest.json", "test"),
        ("dev (1).json", "validation"),
        ("validation-rows_3.jsonl.gz", "validation"),
        ("heldout.json", "test"),
        ("train_test.json", "train_test.json"),
        ("trainval.json", "trainval.json"),
        ("test-dev.json", "test-dev.json"),
        ("latest.json", None),
        ("attested_values.json", None),
        ("pretraining.json", None),
        ("testimonials.json", None),
        ("training_rows_2.json", "train"),
        ("instructions.json", None),
        ("contest.json", None),
    ],
)
def test_the_name_of_a_file_says_which_split_it_is(name: str, split: str | None) -> None:
    assert split_named([name]) == split


def sft(**keys: Any) -> SftConfig:
    return SftConfig(**({"model_name_or_path": "m", "data": "rows"} | keys))


def test_a_name_of_two_splits_is_refused_until_it_is_said_what_it_is_for() -> None:
    with pytest.raises(UserError, match=r"data: a/train_test.json names more than one split; rename it, or say which"):
        splitting(sft(), {"a/train_test.json"})
    with pytest.raises(UserError, match="train_test names more than one split"):
        splitting(sft(split="hash"), {"train_test"})
    assert splitting(sft(data={"train": "train_test.json"}), {"train"})["how"] == "source"
    assert splitting(sft(source_splits={"train": "train_test"}), {"train_test", "test"})["how"] == "source"


@pytest.mark.parametrize("name", ["test", "dev", "test_sft", "validation[:90%]", "test+validation", "my_eval"])
def test_source_splits_do_not_make_a_test_a_training_set(name: str) -> None:
    message = rf"source_splits: \{{train: {re.escape(name)}\}} would train on rows that rows calls {re.escape(name)}"
    with pytest.raises(UserError, match=message):
        splitting(sft(source_splits={"train": name}), {"train", name})


def test_rows_that_their_source_holds_out_are_never_trained_on() -> None:
    assert splitting(sft(), {"train"})["how"] == splitting(sft(), {None})["how"] == "shuffled"
    assert splitting(sft(), {"train", "test"})["how"] == "source"
    with pytest.raises(UserError, match=r"data: rows has test rows and none to train on; say which file is for what"):
        splitting(sft(), {"test"})
    with pytest.raises(UserError, match=r"calls its splits test_sft, x; .* \{train: x, test: test_sft\}"):
        splitting(sft(), {"x", "test_sft"})
    with pytest.raises(UserError, match=r"\{train: train_sft, test: test_sft\}"):
        splitting(sft(), {"train_sft", "test_sft"})
    with pytest.raises(UserError, match=r"\{train: train_sft, validation: dev\}"):
        splitting(sft(), {"train_sft", "dev"})
    named = {"train": "train_sft", "test": "test_sft"}
    assert splitting(sft(source_splits=named), {"train_sft", "test_sft"})["source_splits"] == named
    with pytest.raises(UserError, match="split: hash would train on rows that rows calls dev; set split: source"):
        splitting(sft(split="hash"), {"train", "dev"})
    assert splitting(sft(data={"train": "test.json"}), {"train"})["how"] == "source"
