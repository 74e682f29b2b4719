"""Answers for the judges of benchmarks: kept by all they depend on, and continued."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heed.answers.responses import Answer
from heed.benchmarks import answers
from heed.benchmarks.asking import Asking
from heed.benchmarks.loaded import Loaded
from heed.models.identity import model_sha256
from heed.models.loading import load_tokenizer
from heed.prompts.template import load_prompt
from heed.runs.finished import Subject
from world.small_world import gpt2, records, save_model

ROWS = records(("Say a.", "a!"), ("Say b.", "b!"), ("Say c.", "c!"))


@pytest.fixture
def asked(tmp_path: Path) -> tuple[Asking, Subject]:
    model = save_model(tmp_path / "model", gpt2())
    prompt = load_prompt("alpaca_short", load_tokenizer(str(model)))
    asking = Asking(
        folder=tmp_path / "run",
        prompt=prompt,
        contract=prompt.contract(),
        dtype="float32",
        bits=None,
        batch_size=1,
        limit=None,
        command="test",
        say=lambda text: None,
    )
    return asking, Subject(name="tuned", model=str(model))


def test_a_killed_run_continues_and_asks_nothing_twice(
    asked: tuple[Asking, Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    asking, subject = asked
    generate, counts = answers.generate, []

    def counted(model: Any, prompt: Any, prompts_ids: Any, *, on_response: Any, **options: Any) -> Any:
        counts.append(len(prompts_ids))

        def killed_after_one(place: int, response: Any) -> None:
            on_response(place, response)
            if len(counts) == 1:
                raise KeyboardInterrupt

        return generate(model, prompt, prompts_ids, on_response=killed_after_one, **options)

    def answered(max_new_tokens: int) -> list[Answer]:
        with Loaded(asking, subject) as loaded:
            return answers.answer(loaded, ROWS, name="test", max_new_tokens=max_new_tokens)

    monkeypatch.setattr(answers, "generate", counted)
    with pytest.raises(KeyboardInterrupt):
        answered(4)
    given = answered(4)
    assert counts == [3, 2] and [row.output for row in given] == ["a!", "b!", "c!"]
    assert answered(4) == given
    assert counts == [3, 2]
    answered(5)
    assert counts == [3, 2, 3]


def test_the_contract_is_named_by_its_template_as_in_its_file_and_4_bits_are_another_model(
    asked: tuple[Asking, Subject],
) -> None:
    asking, subject = asked
    key = asking.key(subject)
    assert key["contract"] == asking.contract.template_sha256
    assert key["model_sha256"] == model_sha256(subject.model)
    assert replace(asking, bits=4).key(subject) != key
    stops = replace(asking.contract, stop_token_ids=[0, 1])
    assert replace(asking, contract=stops).key(subject) != key
