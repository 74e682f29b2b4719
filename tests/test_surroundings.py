"""Odd places: folders that are gone, closed or oddly named end in a sentence, or work."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import torch
from tqdm import tqdm

import inspect_data
from heed.errors import UserError, check_surroundings, exit_code
from heed.runs.start import check_folder
from heed.saying import Painted
from world.short_run import run
from world.small_world import ROOT, TINY

INSPECT = ["--model_name_or_path", str(TINY), "--data", str(ROOT / "data" / "instructions.json")]
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_working_folder_that_is_gone_is_reported_before_anything_is_loaded(tmp_path: Path, script: str) -> None:
    program = f"""\
        import os, sys
        sys.path.insert(0, {str(ROOT)!r})
        import {script}
        from heed.errors import exit_code
        os.mkdir("gone"); os.chdir("gone"); os.rmdir("../gone")
        sys.exit(exit_code(lambda: {script}.main(["--config", "c.yaml"])))
        """
    lines = "\n".join(line.strip() for line in program.splitlines())
    done = subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        2,
        "error: the working folder has been deleted; change into one that exists\n",
    )


def test_a_name_that_is_not_utf_8_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"'runs/a\\udcff' is not UTF-8; rename what it names"):
        check_surroundings(["train_sft.py", os.fsdecode(b"runs/a\xff")])
    assert exit_code(lambda: None) == 0


@pytest.mark.parametrize("script", ["train", "inspect"])
def test_a_cache_that_cannot_be_written_is_reported_before_rows_are_read(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], script: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file" / "datasets")
    config = tmp_path / "run.yaml"
    config.write_text(stopped.read_text())
    assert (run(config) if script == "train" else exit_code(lambda: inspect_data.main(INSPECT))) == 2
    told = capsys.readouterr()
    assert f"since nothing can be written into {tmp_path / 'file'}; name a folder that can be" in told.err
    assert "data      " not in told.out and not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["two\nlines", "<script>alert(1)", "a 'b' & c; $d", "Übung 1"])
def test_a_run_folder_may_have_any_name(stopped: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    config = folder / "run.yaml"
    config.write_text(stopped.read_text())
    assert run(config, "--max_steps", "1") == 0
    assert (folder / "run" / "model.safetensors").is_file()


def test_a_folder_below_a_file_or_below_a_closed_one_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run cannot be made, since nothing can be written into .*/file$"):
        check_folder(tmp_path / "file" / "run", resume="auto", overwrite=False)
    monkeypatch.setattr("heed.files.run_folder.os.access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(UserError, match="nothing can be written into"):
        check_folder(tmp_path / "new", resume="auto", overwrite=False)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RuntimeError("could not create a primitive"), "memory ran out (could not create a primitive)"),
        (RuntimeError("can't start new thread"), "memory ran out (can't start new thread)"),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried"), "memory ran out (CUDA out of memory. Tried)"),
        (
            ImportError("a.so: failed to map segment from shared object"),
            "memory ran out (a.so: failed to map segment from shared object)",
        ),
        (MemoryError(), "memory ran out (MemoryError)"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory ran out ([Errno 12] Cannot allocate memory)"),
        (OSError(errno.EFBIG, "File too large", "a.json"), "no space is left for a.json"),
    ],
)
def test_what_the_machine_lacks_is_reported(
    capsys: pytest.CaptureFixture[str], error: Exception, sentence: str
) -> None:
    def short() -> None:
        raise error

    assert exit_code(short) == 2
    assert capsys.readouterr().err.startswith(f"error: {sentence}; free some")


@pytest.mark.parametrize("error", [RuntimeError("could not create a primitive \x1bc"), OSError(5, "\x1bc")])
def test_any_other_error_keeps_its_traceback(capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    def fail() -> None:
        raise error

    assert exit_code(fail) == 1
    told = capsys.readouterr().err
    assert "in fail\n    raise error\n" in told and told.endswith("\\x1bc\n")


def test_colors_of_our_own_and_bars_of_libraries_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def show() -> None:
        print(Painted("\x1b[32mlearned\x1b[0m"))
        for _ in tqdm(range(1), desc="outer", bar_format="{desc}"):
            list(tqdm(range(1), desc="inner", bar_format="{desc}"))

    assert exit_code(show) == 0
    shown = capsys.readouterr()
    assert shown.out == "\x1b[32mlearned\x1b[0m\n"
    assert "\router" in shown.err and "\n\rinner" in shown.err and "\x1b[A" in shown.err and "\\" not in shown.err


@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", "?é"), ("ascii", "??"), ("latin-1", "?é")])
def test_what_a_terminal_cannot_show_is_a_question_mark(
    monkeypatch: pytest.MonkeyPatch, encoding: str, shown: str
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    assert exit_code(lambda: print("\ud83dé")) == 0
    assert raw.getvalue().decode(encoding) == shown + "\n"


def test_a_reader_that_closes_the_output_ends_nothing(tmp_path: Path) -> None:
    program = """if True:
        import sys
        from heed.errors import exit_code
        from tqdm.auto import tqdm
        def work():
            for number in range(2000):
                print("a line that nobody reads", number)
                tqdm.write("nor this one")
            open(sys.argv[1], "w").write("done")
        sys.exit(exit_code(work))
        """
    words = [sys.executable, "-c", program, str(tmp_path / "paid-for")]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert (process.wait(60), process.stderr.read()) == (0, "")
    assert (tmp_path / "paid-for").read_text() == "done"
