"""transformers' decision pipeline as a judge, really run on a model of a few thousand parameters."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from transformers.pipelines import PIPELINE_REGISTRY

from heed.errors import UserError
from heed.files import run_folder
from heed.judge.judging import judge_responses
from heed.judge.settings import JudgeSettings
from heed.judge.verdicts import JudgedAnswer
from world.small_world import gpt2, save_model

HAS_DECISIONS = "decision" in PIPELINE_REGISTRY.get_supported_tasks()
needs_decisions = pytest.mark.skipif(not HAS_DECISIONS, reason="this transformers has no decision pipeline")
CHAT = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"  # noqa: E501
ITEMS = [
    JudgedAnswer(
        name=name, row_id=row_id, instruction=f"Say {row_id}.", input="", output=f"{row_id}!", model_response=answer
    )
    for name in ("base", "tuned")
    for row_id, answer in enumerate(["0!", f"{name} does not know", "x" * 3000])
]


@pytest.fixture
def chat_model(tmp_path: Path) -> Path:
    folder = save_model(tmp_path / "judge", gpt2(n_positions=1024))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return folder


def settings(folder: Path, **changes: Any) -> JudgeSettings:
    usual: dict[str, Any] = {"backend": "decision", "model": str(folder), "control_rows": 1}
    return JudgeSettings(**(usual | changes))


@needs_decisions
def test_a_local_model_scores_by_the_probabilities_of_the_anchors_and_nothing_is_parsed(
    chat_model: Path, tmp_path: Path
) -> None:
    [entry] = judge_responses(ITEMS, settings(chat_model, mode="both"), tmp_path)["judges"]
    lines = run_folder.read_lines(tmp_path / "judge.jsonl")
    scored = [each for each in lines if each["kind"] == "score" and each["control"] is None]
    assert [each["failure"] for each in scored] == [
        None,
        None,
        "too_long",
    ] * 2  # the long answer exceeds 1024 positions
    # A random model finds all five anchors about equally likely.
    assert all(40 < each["score"] < 60 and each["how"] == "decision" for each in scored if each["failure"] is None)
    anchors = [each.split(": ")[0] for each in scored[0]["reason"].split(", ")]
    assert anchors == ["0", "25", "50", "75", "100"]
    assert not entry["controls"]["passed"] and entry["scores"]["tuned"]["withheld"]
    assert entry["pairs"]["base vs tuned"]["identical"] == 2 and entry["pairs"]["base vs tuned"]["n"] == 3
    assert entry["library"].startswith("transformers ") and entry["completion_tokens"] == 0

    before = entry["requests"]
    [entry] = judge_responses(ITEMS, settings(chat_model, mode="both"), tmp_path)["judges"]
    assert before > 5 and entry["requests"] == 0


@needs_decisions
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "classic"}, "judge_backend: decision needs a prompt with a question and anchors"),
        (
            {"base_url": "http://127.0.0.1:1/v1"},
            "judge_base_url: judge_backend: decision runs its model in this process",
        ),
        ({"model": "no/such-model"}, "judge_model: no/such-model could not be loaded"),
    ],
)
def test_what_keeps_a_model_from_deciding_is_reported(
    chat_model: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        judge_responses(ITEMS, settings(chat_model, **changes), tmp_path)


@needs_decisions
def test_a_model_without_a_chat_template_cannot_decide(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"judge_model: .* cannot decide"):
        judge_responses(ITEMS, settings(model_folder), tmp_path)


@pytest.mark.skipif(HAS_DECISIONS, reason="this transformers has the decision pipeline")
def test_an_older_transformers_is_refused_since_it_cannot_decide(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="judge_backend: decision needs transformers' decision pipeline"):
        judge_responses(ITEMS, settings(model_folder), tmp_path)
