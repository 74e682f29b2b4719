"""The script as a user runs it, and its page in a real browser."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import inspect_data
import train_sft
from heed.errors import exit_code
from world.browser import DESK, PHONE, visit
from world.small_world import FINE, TINY

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\u202e & \x1b[31m"
ODD = [
    {"instruction": FINE[0][0], "output": FINE[0][1]},  # again
    {"instruction": HOSTILE, "output": "This is shown as it is. " * 9},
    {"instruction": "Say <|endoftext|> once.", "output": "### Response: it is said."},
]


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    rows = [{"instruction": question, "output": answer} for question, answer in FINE]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows[:30], *ODD, *rows[30:]]))
    path = tmp_path / "run.yaml"
    path.write_text(
        f"model_name_or_path: {TINY}\nprompt: alpaca_short\ndata: {tmp_path / 'rows.jsonl'}\n"
        f"output_dir: {tmp_path / 'run'}\nmax_length: 100\non_long_row: cut_response\nlearning_rate: 1.0e-3\n"
        "audit_allow: [control_tokens, template_text, cut_response, odd_length]\naudit: {duplicate: 0.1}\n"
    )
    return path


def run(config_file: Path, *arguments: object) -> int:
    return exit_code(lambda: inspect_data.main(["--config", str(config_file), *map(str, arguments)]))


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_was_found_is_reported_and_training_does_not_look_again(
    config_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", os.environ | {"NO_COLOR": "1"})
    assert run(config_file, "--preview_rows", 2) == 0
    out = capsys.readouterr().out
    assert "43 rows, looked at in" in out and "audit of 43 rows: train 36, test 4, validation 3" in out
    assert "  duplicate                   1    2.33%   10.00%" in out
    assert "rows.jsonl:31, like " in out and "control_tokens" in out
    assert "learned   response 100 %, prompt 0 %, EOS in 2 of 2 whole responses" in out
    assert "row 1 (" in out and "row 2 (" not in out and "\x1b[" not in out

    assert exit_code(lambda: train_sft.main(["--config", str(config_file), "--dry-run"])) == 0
    assert "audit     43 rows, in the cache; looking took" in capsys.readouterr().out


@pytest.mark.parametrize("script", [inspect_data.main, train_sft.main])
def test_a_finding_over_its_threshold_ends_both_scripts_with_code_2(
    config_file: Path, capsys: pytest.CaptureFixture[str], script: Any
) -> None:
    arguments = ["--config", str(config_file), "--audit", '{"duplicate": 0.0}']
    assert exit_code(lambda: script(arguments)) == 2
    error = capsys.readouterr().err
    assert "error: the data audit stops here: duplicate\n  duplicate: 1 of 43 rows (2.33%, at most 0.00%)" in error
    assert "rows.jsonl:31, like " in error and "audit_allow: [duplicate]" in error
    assert not (config_file.parent / "run").exists()


def test_cleaned_rows_and_pairs_are_written(config_file: Path, tmp_path: Path) -> None:
    clean, pairs = tmp_path / "clean.jsonl", tmp_path / "pairs.jsonl"
    (tmp_path / "rows.jsonl").open("a").write('{"instruction": "Nothing."}\n')
    drop = ("--on_bad_row", "drop", "--export", clean, "--pairs", pairs)
    assert run(config_file, *drop) == 0
    assert len(lines(clean)) == len(lines(pairs)) == 42
    assert lines(clean)[31] == {"instruction": ODD[2]["instruction"], "input": "", "output": ODD[2]["output"]}
    assert lines(pairs)[0]["output"] == FINE[0][1]
    assert lines(pairs)[0]["input"].endswith(f"### Instruction:\n{FINE[0][0]}\n\n### Response:\n")
    duplicate, bad = lines(tmp_path / "clean.jsonl.rejected.jsonl")
    assert (duplicate["row_id"], duplicate["reasons"]) == (30, [f"duplicate of {tmp_path}/rows.jsonl:1"])
    assert bad["reasons"] == ["field 'output': missing (the row has 'instruction')"]
    assert run(config_file, "--data", clean, "--audit", '{"duplicate": 0.0}') == 0


def test_cleaned_rows_in_a_folder_stay_in_their_splits(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"instruction": question, "output": answer} for question, answer in FINE]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [rows[0], *rows]))
    assert run(config_file, "--split", "position", "--export", tmp_path / "clean.jsonl") == 0
    assert "the splits are not in this file" in capsys.readouterr().out
    assert run(config_file, "--split", "position", "--export", tmp_path / "clean") == 0
    assert "are not in this file" not in capsys.readouterr().out
    by_split = {path.stem: lines(path) for path in (tmp_path / "clean").iterdir()}
    assert {name: len(kept) for name, kept in by_split.items()} == {"train": 33, "test": 4, "validation": 3}
    assert by_split["test"][0]["instruction"] == FINE[33][0]
    assert run(config_file, "--data", tmp_path / "clean") == 0
    assert "audit of 40 rows: train 33, test 4, validation 3" in capsys.readouterr().out


def test_conversations_and_broken_texts_can_be_read_again(config_file: Path, tmp_path: Path) -> None:
    def talk(*texts: str) -> str:
        turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
        return json.dumps({"messages": turns}) + "\n"

    good = [talk(*FINE[0]), talk(*FINE[1], *FINE[2]), *(talk(*pair) for pair in FINE[3:])]
    (tmp_path / "talks.jsonl").write_text("".join([*good, talk("Half a letter: \ud83d", "Yes.")]))
    clean, rejected = tmp_path / "clean.jsonl", tmp_path / "clean.jsonl.rejected.jsonl"
    arguments = ["--audit_allow", "bad_row,odd_length"]
    assert (
        run(config_file, "--data", tmp_path / "talks.jsonl", "--on_bad_row", "drop", "--export", clean, *arguments) == 0
    )
    assert clean.read_text() == "".join(good)
    assert lines(rejected)[0]["value"]["messages"][0]["content"] == "Half a letter: \ud83d"


def test_a_first_row_that_the_template_refuses_is_not_among_those_shown(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def chat(*turns: tuple[str, str]) -> str:
        return json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}) + "\n"

    refused = chat(("system", "Be kind."), ("user", "Hello?"), ("assistant", "Hello."))
    chats = [chat(("user", question), ("assistant", answer)) for question, answer in FINE]
    (tmp_path / "chats.jsonl").write_text("".join([refused, *chats]))
    template = tmp_path / "no_system.jinja"
    template.write_text(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No system here') }}{% endif %}"
        "{{ m.role + ': ' + m.content + eos_token }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    assert run(config_file, "--data", tmp_path / "chats.jsonl", "--prompt", template, "--on_bad_row", "drop") == 0
    out = capsys.readouterr().out
    assert "bad_row                     1" in out and "No system here" in out
    assert f"row 1 ({tmp_path}/chats.jsonl:2)" in out and "row 0 (" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--export", "rows.jsonl"), "export: rows.jsonl is among the rows that are read; name another"),
        (("--export", "."), "export: . is there already; name a new folder, or a file (FILE.jsonl)"),
        (("--pairs", "."), "pairs: . is a folder; name a file"),
        (("--html", "none/page.html"), "html: none is not a folder that can be written to"),
        (("--flags", "none"), "flags: none is not a folder"),
        (("--preview_rows", "-1"), "preview_rows: -1 rows cannot be shown"),
        (("--split_shares", "[0.0, 0.5, 0.5]"), "no row is left for training; change split_shares, or give more rows"),
    ],
)
def test_what_cannot_be_written_or_shown_is_refused(
    config_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = (tmp_path / "rows.jsonl").read_text()
    assert run(config_file, *arguments) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl", "run.yaml"]
    assert (tmp_path / "rows.jsonl").read_text() == before


def test_an_evaluation_is_compared_and_flags_are_written(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"question": FINE[5][0], "answer": "?"}) + "\n")
    assert run(config_file, "--against", test, "--flags", tmp_path) == 2
    assert f"{test}, row 1, in {tmp_path}/rows.jsonl:6" in capsys.readouterr().err
    flags = json.loads((tmp_path / "row_flags.json").read_text())
    assert flags["rows"]["5"] == ["contaminated"] and list(flags["against"]) == [str(test)]


def test_column_guesses_are_shown_and_never_applied(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "odd.csv"
    odd.write_text("Query,Reply\nWhat?,That.\n")
    assert run(config_file, "--data", odd, "--column-map") == 0
    assert "to apply it: columns: {instruction: Query, output: Reply}" in capsys.readouterr().out
    assert run(config_file, "--data", odd) == 2
    assert "no known format" in capsys.readouterr().err
    assert run(config_file, "--column-map") == 0
    assert "read as alpaca" in capsys.readouterr().out


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_page_shows_searches_and_filters_rows(
    chromium: "Browser", config_file: Path, tmp_path: Path, width: int
) -> None:
    page_file = tmp_path / "rows.html"
    assert run(config_file, "--html", page_file) == 0
    with visit(chromium, page_file.as_uri(), width=width) as seen:
        page = seen.page
        assert page.inner_text("#page") == "1 to 20 of 43"
        assert page.locator(".row").count() == 20
        first = page.locator(".row").first
        assert "rows.jsonl:1" in first.inner_text() and "Say" in first.inner_text()
        assert first.locator(".l").last.inner_text() == "<|endoftext|>"
        assert first.locator(".r").first.inner_text() == "Below"
        page.click("#next")
        assert page.inner_text("#page") == "21 to 40 of 43"

        page.select_option("#flag", "duplicate")
        assert page.inner_text("#page") == "1 to 1 of 1"
        assert "like " in page.inner_text(".row") and "duplicate" in page.inner_text(".row .tag")
        page.select_option("#flag", "cut_response")
        assert "✂ the response's end is cut off (max_length)" in page.locator(".row").first.inner_text()
        page.select_option("#flag", "")
        page.fill("#search", "<IMG SRC")
        assert page.inner_text("#page") == "1 to 1 of 1"
        assert "<script>alert(1)</script><img src=x onerror=alert(1)>\\u202e" in page.inner_text(".row").replace(
            "\n", ""
        )
        page.fill("#search", "nothing like that")
        assert page.inner_text("#page") == "no row" and page.locator(".row").count() == 0
        page.fill("#search", "")
        page.click("[data-flag=template_text]")
        assert page.inner_text("#page") == "1 to 1 of 1"
        assert page.locator("svg.chart").count() == 3 and "padding" in page.inner_text("main")
        assert seen.problems == [] and seen.overflow() <= 0
        assert seen.requests == [page_file.as_uri()]
