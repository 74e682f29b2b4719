import threading
from typing import Any

import pytest

from heed.answers.streaming import NoRoom, Streamed, stream_answer
from heed.errors import UserError
from heed.models.loading import load_finished
from heed.prompts.template import load_prompt
from world.small_world import TINY, tiny_tokenizer

HELLO: Any = [{"role": "user", "content": "Hello?"}]


@pytest.fixture(scope="module")
def model() -> Any:
    return load_finished(str(TINY))


def stream(model: Any, write: Any, messages: Any = HELLO, **options: Any) -> Streamed:
    prompt = load_prompt("alpaca_short", tiny_tokenizer())
    return stream_answer(model, prompt, messages, stop_token_ids=[0], max_new_tokens=40, write=write, **options)


def test_ctrl_c_ends_an_answer_with_what_was_written_so_far(model: Any) -> None:
    pieces: list[str] = []

    def interrupt(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 5:
            raise KeyboardInterrupt

    whole = stream(model, lambda piece: None).text
    answer = stream(model, interrupt)
    assert answer.cut and answer.text == "".join(pieces) and whole.startswith(answer.text)
    assert 0 < len(answer.text) < len(whole)
    assert stream(model, lambda piece: None).text == whole  # nothing of it is left behind


def test_an_answer_that_nobody_waits_for_ends_after_a_token(model: Any) -> None:
    stop = threading.Event()
    stop.set()
    pieces: list[str] = []
    answer = stream(model, pieces.append, stop=stop)
    assert answer.cut and answer.text == "".join(pieces) and len(answer.text.split()) <= 1


def test_a_conversation_without_room_ends_in_a_sentence(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    long: Any = [{"role": "user", "content": "word " * 3000}]
    with pytest.raises(NoRoom, match=r"the conversation has \d+ tokens and the model has positions for \d+, so there"):
        stream(model, print, long)

    def full(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(model, "generate", full)
    with pytest.raises(UserError, match=r"not enough memory for a conversation of \d+ tokens"):
        stream(model, print)
