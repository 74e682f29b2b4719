import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from heed.errors import UserError
from heed.evaluation.forgetting import (
    GENERAL,
    forgetting_rows,
    keep_texts,
    measure_texts,
    read_texts,
)
from heed.evaluation.kept import Asked, Evaluation, keep_systems
from heed.files.run_folder import read_lines
from world.small_world import gpt2, tiny_tokenizer


def test_a_text_is_a_line_and_the_general_ones_are_sixty(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("one\n\n  two  \n")
    said: list[str] = []

    assert read_texts(path, said.append) == ["one", "two"] and len(read_texts(GENERAL, said.append)) == 60
    path.write_text("a\n" * 1200)
    assert len(read_texts(path, said.append)) == 1000
    assert said == [f"forgetting: the first 1,000 of 1,200 lines of {path} are read"]
    path.write_text("\n")
    with pytest.raises(UserError, match=r"forgetting: .*text\.txt has no text; give a UTF-8 file"):
        read_texts(path, said.append)
    with pytest.raises(UserError, match=r"forgetting: .*gone cannot be read as text .*give a UTF-8 file"):
        read_texts(tmp_path / "gone", said.append)


def test_every_token_of_a_text_counts_even_if_it_is_read_in_pieces() -> None:
    tokenizer, text = tiny_tokenizer(), "A young seal is called a pup."
    ids = tokenizer(text)["input_ids"]
    model = gpt2(n_positions=5).eval()
    with torch.no_grad():
        wanted = sum(
            -model(input_ids=torch.tensor([[0, *piece]])).logits[0, :-1].log_softmax(-1)[range(len(piece)), piece].sum()
            for piece in (ids[start : start + 4] for start in range(0, len(ids), 4))
        )

    [found] = measure_texts(model, tokenizer, [text])

    assert len(ids) > 4 and (found["tokens"], found["bytes"]) == (len(ids), 29)
    assert found["nats"] == pytest.approx(float(wanted), rel=1e-5)


@pytest.fixture
def evaluation() -> Evaluation:
    asked = Asked(model="m", revision=None, responses="responses.json", responses_sha256="ab", contract="c0ffee")
    unknown = dict.fromkeys(("limit", "prompt", "contract", "engine", "max_new_tokens", "device", "seconds"))
    return Evaluation(
        heed="0.1.0",
        systems={"base": asked, "tuned": asked},
        data="rows.json",
        split="test",
        data_sha256="ab12",
        n=4,
        n_full=4,
        versions={},
        command="python eval_responses.py",
        time="2026-11-28",
        **unknown,
    )


def test_what_was_lost_is_the_difference_over_the_same_texts(tmp_path: Path, evaluation: Evaluation) -> None:
    text = tmp_path / "text.txt"
    text.write_text("some text\n" * 12)
    sizes = [(8, 40), (4, 20)] * 6
    keep_texts(tmp_path, "tuned", text, [{"nats": 2.0 * n, "tokens": n, "bytes": b} for n, b in sizes])
    assert forgetting_rows(tmp_path, evaluation) == []  # nothing to compare it with
    keep_texts(tmp_path, "base", text, [{"nats": 1.0 * n + n % 8 / 4, "tokens": n, "bytes": b} for n, b in sizes])

    rows = forgetting_rows(tmp_path, evaluation)

    assert [(row.metric, row.name, row.n, row.data) for row in rows] == [
        ("loss_per_token", "base", 12, str(text)),
        ("loss_per_token", "tuned", 12, str(text)),
        ("bits_per_byte", "base", 12, str(text)),
        ("bits_per_byte", "tuned", 12, str(text)),
    ]
    # 72 tokens and 360 bytes in all; base needs 72 + 6 nats, tuned 144.
    assert [row.value for row in rows[:2]] == pytest.approx([78 / 72, 2.0])
    assert rows[3].value == pytest.approx(144 / math.log(2) / 360)
    lost = rows[1].details["difference_from_base"]
    assert lost["value"] == pytest.approx(2 - 78 / 72) and lost["ci95"][0] > 0 and lost["p"] < 0.05

    keep_systems(tmp_path / "forgetting.jsonl", {"tuned"})
    assert {line["name"] for line in read_lines(tmp_path / "forgetting.jsonl")} == {"tuned"}
    alone = replace(evaluation, systems={"tuned": evaluation.systems["tuned"]})
    assert forgetting_rows(tmp_path, alone) == []
