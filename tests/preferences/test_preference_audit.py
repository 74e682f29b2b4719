"""What is found in pairs before they are learned from."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import inspect_data
from faults.harness import write_config
from heed.audit.findings import refuse
from heed.data.records import Rejected, normalized
from heed.errors import UserError, exit_code
from heed.preferences.audit import PairAudit, audit, given_away
from heed.preferences.pairs import Pair, Pairs
from heed.runs.held_out import HeldOut
from world.short_run import run
from world.small_world import records

NO_CHANGES: Mapping[str, float] = MappingProxyType({})


def pair(line: int, prompt: str, chosen: str, rejected: str, **more: Any) -> Pair:
    return Pair(
        place=f"pairs.jsonl:{line}",
        prompt=({"role": "user", "content": prompt},),
        chosen=chosen,
        rejected=rejected,
        **more,
    )


def look(*pairs: Pair, changes: Mapping[str, float] = NO_CHANGES, allow: Sequence[str] = ()) -> PairAudit:
    return audit(Pairs(pairs=list(pairs), rejected=[], files={}, ignored_fields=[]), None, changes, allow)


GOOD = [pair(n, f"Say {n}.", f"It is {n}.", f"Not {n + 1}, surely.") for n in range(10, 20)]


def test_good_pairs_are_found_good() -> None:
    found = look(*GOOD)
    refuse(found.findings)
    assert "not found: bad_pair, duplicate, contradiction, answer_in_prompt" in str(found)


@pytest.mark.parametrize(
    ("flawed", "name", "place"),
    [
        (pair(1, "Say 10.", "It is 10.", "Not 11, surely."), "duplicate", "pairs.jsonl:1, like pairs.jsonl:10"),
        (pair(1, "say  10.", "Not 11, surely.", "It is 10."), "contradiction", "pairs.jsonl:1, against pairs.jsonl:10"),
        (pair(1, "Is it true that it is 7?", "It is 7.", "No."), "answer_in_prompt", "pairs.jsonl:1, chosen"),
    ],
)
def test_a_flaw_is_counted_with_its_place_and_stops_over_its_threshold(flawed: Pair, name: str, place: str) -> None:
    found = look(*GOOD, flawed)
    assert {each.name: each.examples for each in found.findings if each.count} == {name: [place]}
    with pytest.raises(UserError, match=f"{name}: 1 of 11 pairs \\(9.09%, at most"):
        refuse(found.findings)
    refuse(look(*GOOD, flawed, allow=(name,)).findings)
    refuse(look(*GOOD, flawed, changes={name: 0.1}).findings)


def test_bad_pairs_are_counted_by_reason() -> None:
    bad = [Rejected(row_id=n, place=f"pairs.jsonl:{n}", reasons=[why], value=None) for n, why in enumerate("aba", 1)]
    found = audit(Pairs(pairs=GOOD, rejected=bad, files={}, ignored_fields=[]), None, {}, [])
    assert found.facts[1:3] == [
        "2 bad rows left out, first pairs.jsonl:1: a",
        "1 bad row left out, first pairs.jsonl:2: b",
    ]
    with pytest.raises(UserError, match=r"bad_pair: 3 of 13 pairs \(23.08%, at most 5.00%\)"):
        refuse(found.findings)


def test_an_unknown_finding_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="audit_allow: unknown finding 'duplicates'; did you mean duplicate"):
        look(*GOOD, allow=("duplicates",))


def test_a_warning_says_when_nearly_always_the_longer_answer_is_chosen() -> None:
    longer = [pair(n, f"Say {n}.", "A long answer.", "Short.") for n in range(40)]
    assert look(*longer).facts[2:] == [
        "lengths   on average 14.0 characters chosen, 6.0 rejected",
        "          the longer answer is the chosen one in 100.0% [91.2%, 100.0%] of the 40 pairs whose lengths differ",
        "          WARNING: nearly always the longer answer is chosen, so length alone may be learned; add pairs where "
        "the longer one is rejected, and compare with lengths matched afterwards",
    ]
    assert "the shorter answer is chosen" in str(look(*(pair(n, f"Say {n}.", "x", "xx") for n in range(40))))
    assert "WARNING" not in str(look(*longer[:10]))


def test_who_decided_and_how_often_alike() -> None:
    ada, judge = ("Ada", "judge:m"), ("judge:m",)
    found = look(
        pair(1, "Say x.", "x", "y", voters=ada),
        pair(2, "Say x.", "x", "y", voters=judge),
        pair(3, "Say y.", "x", "y", voters=judge),
        pair(4, "Say y.", "y", "x"),
    )
    assert found.facts[:3] == [
        "audit of 4 pairs on 2 prompts",
        "decided   2 by judges, 1 by people, 1 by nobody named (judge:m 3, Ada 1)",
        "agreement 1 of 2 comparisons made more than once came out alike",
    ]


def test_what_a_run_is_evaluated_on_is_found_by_number_and_by_text() -> None:
    long = "Name all of the nine birds that were seen on the lake in May."
    held_out = HeldOut(
        known={"train": {1}, "test": {7, "say x."}, "validation": {normalized(long)}},
        records=records(("Say x.", "x"), (long, "None.")),
    )
    pairs = [
        pair(1, "Say z.", "x", "y", row_id=7),
        pair(2, "say X.", "x", "y"),
        pair(3, f"A task. {long}", "x", "y"),
        pair(4, f"A task. {long}", "x", "y", row_id=1),
    ]
    reasons: dict[str, list[str]] = defaultdict(list)
    assert given_away(pairs, held_out, reasons) == {
        "held_out": (2, 4, ["pairs.jsonl:1", "pairs.jsonl:2"]),
        "contaminated": (1, 2, ["row 2, in pairs.jsonl:3"]),
    }
    assert reasons == {"pairs.jsonl:1": ["held_out"], "pairs.jsonl:2": ["held_out"], "pairs.jsonl:3": ["contaminated"]}


def test_an_export_leaves_out_what_needs_no_judgement_with_the_reasons(tmp_path: Path) -> None:
    good = {"prompt": "Say x.", "chosen": "x", "rejected": "y", "more": 1}
    lines = [good, good | {"more": 2}, {"prompt": "Say y."}, good | {"chosen": "y", "rejected": "x"}]
    path, out = tmp_path / "pairs.jsonl", tmp_path / "clean.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ["--preferences", str(path), "--export", str(out)]
    assert exit_code(lambda: inspect_data.main(arguments)) == 2
    assert [json.loads(line) for line in out.read_text().splitlines()] == [good, lines[3]]
    rejected = [json.loads(line) for line in (tmp_path / "clean.jsonl.rejected.jsonl").read_text().splitlines()]
    assert [(each["place"], each["value"]) for each in rejected] == [(f"{path}:2", lines[1]), (f"{path}:3", lines[2])]
    assert rejected[0]["reasons"] == [f"duplicate of {path}:1"] and "field 'chosen'" in rejected[1]["reasons"][0]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = write_config(tmp_path_factory.mktemp("tuned"))
    assert run(config, "--max_steps", "1") == 0
    return config.parent / "run"


def test_the_script_looks_at_pairs_for_a_run(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pairs.jsonl"
    held_out = json.loads((run_folder / "splits.json").read_text())["test"][0]
    lines = [{"prompt": f"Say {n}.", "chosen": f"It is {n}.", "rejected": "No.", "row_id": held_out} for n in range(3)]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines[:1], {**lines[2], "row_id": None}]))
    capsys.readouterr()
    arguments = ["--preferences", str(path), "--run", str(run_folder)]
    assert exit_code(lambda: inspect_data.main(arguments)) == 2
    out, error = capsys.readouterr()
    assert f"{path}: audit of 2 pairs on 2 prompts" in out
    assert "tokens chosen" in out and "the longest with its prompt has" in out
    assert "held_out: 1 of 2 pairs (50.00%, at most 0.00%)" in error and f"{path}:1" in error
    assert exit_code(lambda: inspect_data.main([*arguments, "--audit_allow", "held_out"])) == 0
    assert exit_code(lambda: inspect_data.main([*arguments, "--html", "rows.html"])) == 2
    assert "html" in capsys.readouterr().err
