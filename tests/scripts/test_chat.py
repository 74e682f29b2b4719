"""Talking to a model as a user does: lines in, answers out."""

import io
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import chat
from heed.answers.conversation import Conversation
from heed.answers.generation import generate
from heed.answers.streaming import stream_answer
from heed.data.records import Message
from heed.errors import exit_code
from heed.models import loading
from heed.prompts.template import load_prompt
from world.small_world import ROOT, gpt2, save_model, tiny_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its contract, and one beside it that answers differently."""
    folder = tmp_path_factory.mktemp("chat")
    model = save_model(folder / "tuned", gpt2())
    tokenizer = tiny_tokenizer()
    prompt = load_prompt("alpaca_short", tokenizer)
    tokenizer.chat_template = prompt.template
    tokenizer.save_pretrained(model)
    prompt.contract().save(model)
    (model / "README.md").write_text("---\nbase_model: nobody/knows\n---\n")
    other: Any = gpt2()
    other.transformer.wte.weight.data.mul_(-1)
    save_model(folder / "base", other)
    return folder


def talk(folder: Path, text: str, *more: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    words = ["--model", str(folder / "tuned"), "--max_new_tokens", "8", *more]
    return exit_code(lambda: chat.main(words))


def greedy(folder: Path, messages: list[Message], name: str = "tuned") -> str:
    model = loading.load_finished(str(folder / name))
    prompt = load_prompt("alpaca_short", tiny_tokenizer())
    [response] = generate(
        model,
        prompt,
        [prompt.encode_prompt(messages)],
        stop_token_ids=[0],
        batch_size=1,
        max_new_tokens=8,
        engine="one",
        say=lambda text: None,
    )
    return response.text


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def test_the_answer_is_the_greedy_one_and_comes_in_pieces(folder: Path) -> None:
    pieces: list[str] = []
    prompt = load_prompt("alpaca_short", tiny_tokenizer())
    model = loading.load_finished(str(folder / "tuned"))
    answer = stream_answer(model, prompt, [user("Hello?")], stop_token_ids=[0], max_new_tokens=8, write=pieces.append)
    assert answer.text == "".join(pieces) == greedy(folder, [user("Hello?")])
    assert len([piece for piece in pieces if piece]) > 1


def test_what_was_said_is_remembered_until_it_is_reset(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = greedy(folder, [user("One?")])
    second = greedy(folder, [user("One?"), assistant(first), user("Two?")])
    brief = greedy(folder, [{"role": "system", "content": "Be brief."}, user("Two?")])
    alone = greedy(folder, [user("Two?")])

    text = "One?\nTwo?\n/system Be brief.\nTwo?\n/system\nTwo?\n/reset\n\nTwo?\n/quit\nnever asked\n"
    assert talk(folder, text, monkeypatch=monkeypatch) == 0

    out = capsys.readouterr().out
    assert out == (
        f"{first}\n{second}\nstarting over with the system message: Be brief.\n{brief}\n"
        f"starting over without a system message\n{alone}\nstarting over\n{alone}\n"
    )


def test_the_base_model_answers_beside_the_tuned_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = str(folder / "base")
    assert talk(folder, "/base\nOne?\n/base\n/reset\nOne?\n", "--base", base, monkeypatch=monkeypatch) == 0
    tuned, other = greedy(folder, [user("One?")]), greedy(folder, [user("One?")], "base")
    assert capsys.readouterr().out == (
        f"{base} answers too, to the same conversation\nbase: {other}\ntuned: {tuned}\n"
        f"{base} answers no longer\nstarting over\n{tuned}\n"
    )
    assert tuned != other


def test_a_line_that_cannot_be_answered_is_reported_and_the_next_one_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "word " * 300
    assert talk(folder, f"/nothing\n{long}\n/base\nOne?\n", monkeypatch=monkeypatch) == 0
    captured = capsys.readouterr()
    assert "error: /nothing is not a command; /help lists them" in captured.err
    assert "so there is no room for an answer; /reset starts over" in captured.err
    assert "nobody/knows" in captured.err  # the base named by its card, which does not exist
    assert captured.out.endswith(f"{greedy(folder, [user('One?')])}\n")


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("a b", "error: model: 'a b' is neither a folder here nor a possible name of a model on the Hub (ME/MODEL)\n"),
        ("README.md", "error: README.md is a file, and not GGUF; name a folder, a .gguf file or a Hub id\n"),
        ("docs", "error: model: the folder docs contains no model (config.json or adapter_config.json is missing)\n"),
        (
            "me/absent",
            "error: model: me/absent is not a folder here, and the Hub cannot be reached (nor is it in the cache)\n",
        ),
    ],
)
def test_a_bad_model_id_gets_one_sentence(capsys: pytest.CaptureFixture[str], model: str, sentence: str) -> None:
    assert exit_code(lambda: chat.main(["--model", model])) == 2
    assert capsys.readouterr().err == sentence


def test_an_answer_of_no_token_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: chat.main(["--model", "docs", "--max_new_tokens", "0"])) == 2
    assert capsys.readouterr().err == "error: max_new_tokens: 0 leaves no room for an answer; give 1 or more\n"


def test_a_conversation_keeps_its_system_message_in_front() -> None:
    conversation = Conversation("Be brief.")
    conversation.add("One?", "Yes.")
    system: Message = {"role": "system", "content": "Be brief."}
    assert conversation.asked("Two?") == [system, user("One?"), assistant("Yes."), user("Two?")]


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, chat; chat.main(['--help']); print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "/system TEXT" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_the_arrow_keys_bring_back_what_was_written(folder: Path) -> None:
    answer = greedy(folder, [user("One?")])
    ours, theirs = pty.openpty()
    words = [sys.executable, "chat.py", "--model", str(folder / "tuned"), "--max_new_tokens", "8"]
    child = subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=os.environ | {"TERM": "xterm"}
    )
    shown = ""

    def until(text: str) -> None:
        nonlocal shown
        began = time.monotonic()
        while text not in shown and time.monotonic() - began < 60:
            shown += os.read(ours, 4096).decode(errors="replace")
        shown = shown.partition(text)[2]

    until("> ")
    os.write(ours, b"One?\n")
    until(answer.strip())
    until("> ")
    os.write(ours, b"/reset\n")
    until("starting over")
    until("> ")
    os.write(ours, b"\x1b[A\x1b[A\n")  # twice up
    until(answer.strip())
    until("> ")
    os.write(ours, b"\x04")
    assert child.wait(20) == 0
