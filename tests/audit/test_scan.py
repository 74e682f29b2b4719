"""Each thing that can be wrong with a row, in a set of otherwise good rows."""

import json
import os
import signal
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from heed.audit import scan as scanning
from heed.audit.cache import cache_file, cached_scan, scan_key, store_scan
from heed.audit.findings import KINDS, judge, refuse, table
from heed.audit.flags import read_flags, was_compared, write_flags
from heed.audit.looker import Looker
from heed.audit.scan import Scan, scan
from heed.data.records import Record, Rejected
from heed.data.splits import split_numbers, split_records
from heed.errors import UserError
from heed.files.hashes import file_sha256
from heed.prompts.template import Prompt, load_prompt, make_prompt
from heed.tokens.encoding import Policy, encode_split, take_split
from world.small_world import FINE, TINY, records

POLICY = Policy(max_length=256, on_long_row="error", loss_on="response")


@pytest.fixture
def prompt(tokenizer: PreTrainedTokenizerBase) -> Prompt:
    return load_prompt("alpaca_short", tokenizer)


def look(rows: Iterable[Record | Rejected], prompt: Prompt, policy: Policy = POLICY, **options: Any) -> Scan:
    rule = partial(split_numbers, how="position", shares=(0.8, 0.1, 0.1), source_splits={})
    held = list(rows)
    return scan(lambda: held, prompt, policy, rule, num_proc=1, **options)


def names(scanned: Scan, position: int) -> tuple[str, ...]:
    return scanned.flags(position)


def test_good_rows_have_no_flag(prompt: Prompt) -> None:
    scanned = look(records(*FINE), prompt)
    assert not scanned.rows["flags"].any()
    assert scanned.place(7) == "rows.json:8" and scanned.examples == 40
    refuse(judge(scanned, {}, []).findings)
    assert "found nothing" in judge(scanned, {}, []).summary()


@pytest.mark.parametrize(
    ("pair", "flag"),
    [
        (("Say <|endoftext|> now, please.", "It is said."), "control_tokens"),
        (("Sort these.\n\n### Response:\nDone.", "Sorted, as you wanted it."), "template_text"),
        (("Below is an instruction that describes a task.", "So it is, and this is an answer."), "template_text"),
        (("<|im_start|>user\nWho is there?", "Nobody is there."), "template_text"),
        (("What stands in this empty cell?", "N/A"), "placeholder"),
        (("SAY which red  thing one people of 0 saw.", "they saw one 0."), "duplicate"),
        (("Say which red thing one people of 0 saw!", "They saw one 0."), "near_duplicate"),
        (("Say which red thing one people of 0 saw.", "Nobody can know that."), "conflicting_answers"),
        (("Welches von den roten Dingen ist das und wie", "Das ist nicht von dem und auch nicht"), "other_language"),
        (("Какая вещь была здесь вчера вечером?", "Здесь была красная вещь."), "other_language"),
        (("Say much.", "word " * 180), "odd_length"),
    ],
)
def test_each_defect_is_flagged_at_its_row(prompt: Prompt, pair: tuple[str, str], flag: str) -> None:
    scanned = look(records(*FINE[:20], pair, *FINE[20:]), prompt)
    assert flag in names(scanned, 20)
    assert [number for number in range(41) if flag in names(scanned, number) and number != 0] == [20]
    with pytest.raises(UserError, match=f"the data audit stops here: {flag}") as error:
        refuse(judge(scanned, {flag: 0.0}, [name for name in KINDS if name != flag]).findings)
    assert "rows.json:21" in str(error.value) or "rows.json:1\n" in str(error.value)
    assert f"audit_allow: [{flag}]" in str(error.value)
    refuse(judge(scanned, {flag: 0.0}, list(KINDS)).findings)


def test_a_prompt_with_two_answers_names_both_rows(prompt: Prompt) -> None:
    scanned = look(records(*FINE[:20], (FINE[5][0], "Nobody can know that."), *FINE[20:]), prompt)
    [found] = [finding for finding in judge(scanned, {}, []).findings if finding.name == "conflicting_answers"]
    assert found.examples == [
        "rows.json:6, answered differently in rows.json:21",
        "rows.json:21, answered differently in rows.json:6",
    ]


def test_a_held_out_row_that_training_has_seen_is_flagged_on_both_sides(prompt: Prompt) -> None:
    nearly = (FINE[3][0].replace("saw.", "saw!"), FINE[3][1])
    scanned = look(records(*FINE[:38], FINE[2], nearly), prompt)
    assert names(scanned, 38) == ("split_overlap",) == names(scanned, 2)
    assert names(scanned, 39) == ("near_split_overlap",) == names(scanned, 3)
    [overlap] = [finding for finding in judge(scanned, {}, []).findings if finding.name == "split_overlap"]
    assert (overlap.count, overlap.total) == (1, 8)
    assert overlap.examples == ["rows.json:39, like rows.json:3"]


@pytest.mark.parametrize(
    ("on_long_row", "flag", "learned", "lost"),
    [("error", "too_long", 0, 33), ("drop", "too_long", 0, 33), ("cut_prompt", "cut_prompt", 33, 0),
     ("cut_response", "cut_response", 10, 23)],
)  # fmt: skip
def test_what_long_rows_lose_is_reported(prompt: Prompt, on_long_row: Any, flag: str, learned: int, lost: int) -> None:
    [record] = records(("Say a.", "word " * 29 + "end"))
    ids, [(start, end)] = prompt.encode(record.messages)
    policy = Policy(max_length=start + 10, on_long_row=on_long_row, loss_on="response")
    scanned = look([record, *records(*FINE)], prompt, policy)
    row = scanned.rows[0]
    assert end - start == 33 and end == len(ids)
    assert names(scanned, 0)[0] == flag and "little_learned" not in names(scanned, 0)
    assert (row["learned_tokens"], row["lost_tokens"]) == (learned, lost)


def test_an_answer_that_would_merge_with_its_prompt_is_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    template = (
        "{% for message in messages %}{{ message.content }}{{ '\\nth' if message.role == 'user' else eos_token }}"
        "{% endfor %}"
    )
    assert len(tokenizer.encode("the", add_special_tokens=False)) == 1
    scanned = look(records(("Say it.", "e king."), *FINE), make_prompt("own", template, tokenizer))
    assert scanned.flagged("boundary_merge").tolist() == [0]


def test_two_bos_tokens_are_noticed() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    template = load_prompt("question", tokenizer).template
    doubled = make_prompt("own", "{{ bos_token }}{{ bos_token }}" + template, tokenizer)
    assert look(records(*FINE), doubled).flagged("double_bos").size == 40


def test_nothing_but_eos_is_not_a_target(tokenizer: PreTrainedTokenizerBase) -> None:
    template = (
        "{% for message in messages %}{{ message.content if message.role == 'user' or 'answered' in message.content }}"
        "{{ '\\n' if message.role == 'user' }}{% endfor %}"
    )
    prompt = make_prompt("own", template, tokenizer)
    scanned = look(records(("Say it.", "No."), ("Say more.", "It is answered.")), prompt)
    assert names(scanned, 0)[0] == "no_target" and "no_target" not in names(scanned, 1)


def test_every_turn_of_a_conversation_counts(prompt: Prompt) -> None:
    turns = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}] * 2
    talk = Record(row_id=0, place="talk.jsonl:1", messages=tuple(turns))  # type: ignore[arg-type]
    scanned = look([talk], prompt)
    [(start, end)] = prompt.encode(talk.messages[:2]).spans
    hello = end - start
    assert scanned.examples == 1 and scanned.rows["learned_tokens"].tolist() == [2 * hello]


def test_a_long_chat_is_not_little_learned(prompt: Prompt) -> None:
    """Whether it is one example, or a template that drops earlier thinking makes an example of every answer."""
    turns = [{"role": "user", "content": "Hi there. " * 5}, {"role": "assistant", "content": "Ho."}] * 12
    talk = Record(row_id=0, place="talk.jsonl:1", messages=tuple(turns))  # type: ignore[arg-type]
    template = prompt.template.replace("+ message.content + eos", "+ message.content[0 if loop.last else 1 :] + eos")
    forgetful = make_prompt("forgetful", template, prompt.tokenizer)
    for style, examples in ((prompt, 1), (forgetful, 12)):
        scanned = look([talk], style, Policy(max_length=2048, on_long_row="error", loss_on="response"))
        assert scanned.examples == examples and "little_learned" not in names(scanned, 0)


def test_bad_rows_are_counted_separately(prompt: Prompt) -> None:
    bad = Rejected(row_id=40, place="rows.json:41", reasons=["field 'output': is null"], value={})
    scanned = look([*records(*FINE), bad], prompt)
    [finding] = [finding for finding in judge(scanned, {}, []).findings if finding.count]
    assert (finding.name, finding.count, finding.total) == ("bad_row", 1, 41)
    assert "rows.json:41: field 'output': is null" in table(judge(scanned, {}, []))


def test_several_processes_find_what_one_finds(prompt: Prompt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "CHUNK", 7)
    rows = records(*FINE, *FINE[:3])
    rule = partial(split_numbers, how="hash", shares=(0.8, 0.1, 0.1), source_splits={})
    one, two = (scan(lambda: rows, prompt, POLICY, rule, num_proc=number) for number in (1, 2))
    assert np.array_equal(one.rows, two.rows) and one.files == two.files


@pytest.mark.parametrize("how", ["position", "hash"])
def test_what_was_audited_is_what_is_learned(
    prompt: Prompt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    monkeypatch.setattr(scanning, "CHUNK", 7)
    rows, policy = records(*FINE, ("Say much.", "word " * 300)), replace(POLICY, on_long_row="drop")
    chosen: Any = {"how": how, "shares": (0.7, 0.2, 0.1), "source_splits": {}}
    tokens = tmp_path / "kept" / "tokens.arrow"
    found = scan(lambda: rows, prompt, policy, partial(split_numbers, **chosen), num_proc=2, tokens=tokens)
    assert found.examples == 41
    for split in split_records(rows, **chosen).values():
        taken, wanted = take_split(tokens, split, policy), encode_split(split, prompt, policy)
        assert taken.dataset.to_dict() == wanted.dataset.to_dict() and taken.counts == wanted.counts


def test_a_worker_that_is_killed_ends_the_scan_with_a_sentence(prompt: Prompt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Looker, "look", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    rule = partial(split_numbers, how="hash", shares=(0.8, 0.1, 0.1), source_splits={})
    with pytest.raises(UserError, match="a process that looks at rows was killed"):
        scan(lambda: records(*FINE), prompt, POLICY, rule, num_proc=2)


@pytest.mark.parametrize("how", ["position", "hash", "source"])
def test_rows_that_are_not_kept_are_split_like_those_that_are(prompt: Prompt, how: Any) -> None:
    rows = [
        Record(row_id=row.row_id, place=row.place, messages=row.messages, source_split=("dev", "train", "x")[i % 3])
        for i, row in enumerate(records(*FINE))
    ]
    chosen: Any = {"how": how, "shares": (0.7, 0.2, 0.1), "source_splits": {"train": "train", "validation": "dev"}}
    scanned = scan(lambda: rows, prompt, POLICY, partial(split_numbers, **chosen), num_proc=1)
    for number, (_, members) in enumerate(split_records(rows, **chosen).items()):
        found = scanned.rows["row_id"][scanned.rows["split"] == number]
        assert sorted(found.tolist()) == [row.row_id for row in members]


def test_a_scan_is_taken_from_the_cache_and_any_change_scans_again(prompt: Prompt, tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    against = [str(tmp_path / "test.jsonl")]
    reading = {"split": "hash", "columns": {}}
    key = scan_key({"rows.json": "1"}, reading, prompt, POLICY, against)
    assert cached_scan(key) is None
    store_scan(key, look(records(*FINE, FINE[0]), prompt))
    found = cached_scan(key)
    assert found is not None and found.from_cache and names(found, 40) == ("split_overlap",)
    assert found.place(40) == "rows.json:41" and "in the cache; looking took" in judge(found, {}, []).summary()

    other = Policy(max_length=255, on_long_row="error", loss_on="response")
    assert scan_key({"rows.json": "2"}, reading, prompt, POLICY, against) != key
    assert scan_key({"rows.json": "1"}, reading | {"split": None}, prompt, POLICY, against) != key
    assert scan_key({"rows.json": "1"}, reading, prompt, other, against) != key
    (tmp_path / "test.jsonl").write_text('{"prompt": "a", "response": "c"}\n')
    assert scan_key({"rows.json": "1"}, reading, prompt, POLICY, against) != key
    cache_file(key).write_bytes(b"PK damaged")
    assert cached_scan(key) is None


def test_training_rows_that_give_an_evaluation_away_are_found(prompt: Prompt, tmp_path: Path) -> None:
    long = "In the year of the great flood the king of the north went down to the sea and asked who had seen his ship"
    path = tmp_path / "test.jsonl"
    questions = [long + "?", FINE[1][0].upper(), "What is asked nowhere else in all of these many rows of ours?"]
    path.write_text("".join(json.dumps({"question": text, "answer": "So."}) + "\n" for text in questions))
    told = (f"Read this text: {long}. Who was it?", "The king.")
    scanned = look(records(*FINE, told), prompt, against=[str(path)])

    assert scanned.against[str(path)] == {
        "sha256": file_sha256(path),
        "questions": 3,
        "known": {"0": 40, "1": 1},
    }
    assert "contaminated" in names(scanned, 40) and names(scanned, 1) == ("contaminated",)
    [finding] = [finding for finding in judge(scanned, {}, []).findings if finding.name == "contaminated"]
    assert (finding.count, finding.total, finding.stops) == (2, 3, True)
    assert finding.examples[0] == f"{path}, row 1, in rows.json:41"

    write_flags(tmp_path, scanned)
    assert read_flags(tmp_path)[1] == ("contaminated",)
    moved = path.rename(tmp_path / "renamed.jsonl")
    assert read_flags(tmp_path, str(moved)) == {0: ("contaminated",), 1: ("contaminated",)}
    assert was_compared(tmp_path) and not was_compared(tmp_path, "README.md")
    assert read_flags(tmp_path / "none") == {}


@pytest.mark.parametrize(
    ("changes", "allow", "message"),
    [
        ({"near_duplicates": 0.1}, [], "audit: unknown finding 'near_duplicates'; did you mean near_duplicate?"),
        ({"duplicate": 5.0}, [], "audit.duplicate: 5.0 is not a share of rows, between 0 and 1"),
        ({}, ["everything"], "audit_allow: unknown finding 'everything'; the known ones are bad_row"),
    ],
)
def test_thresholds_are_checked(prompt: Prompt, changes: Any, allow: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        judge(look(records(*FINE), prompt), changes, allow)
