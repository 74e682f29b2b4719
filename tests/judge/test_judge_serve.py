"""The judge against a real server, `transformers serve`, with a model that is made to say one thing."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from faults.harness import free_port
from heed.files import run_folder
from heed.judge.judging import judge_responses
from heed.judge.settings import JudgeSettings
from heed.judge.verdicts import JudgedAnswer
from world.small_world import gpt2, save_model, tiny_tokenizer
from world.waiting import wait_for

ITEMS = [
    JudgedAnswer(
        name="tuned", row_id=row_id, instruction=f"Say {row_id}.", input="", output=f"{row_id}!", model_response="0!"
    )
    for row_id in range(3)
]
TEMPLATE = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}{{ 'assistant: ' }}"


def model_that_says(word: str, folder: Path) -> Path:
    """It writes the word whatever it has read, and EOS once it has read the word."""
    model: Any = gpt2(n_positions=2048, tie_word_embeddings=False)
    [token_id] = tiny_tokenizer().encode(word)
    with torch.no_grad():
        for parameter in (model.lm_head.weight, model.transformer.wpe.weight):
            parameter.zero_()
        for block in model.transformer.h:  # nothing is added to a token's embedding on its way through
            for layer in (block.attn.c_proj, block.mlp.c_proj):
                layer.weight.zero_()
        seen = torch.nn.functional.layer_norm(model.transformer.wte.weight[token_id], (32,))  # of length sqrt(32)
        always = torch.nn.functional.normalize(torch.ones(32), dim=0)  # orthogonal to whatever a layer norm gives
        model.transformer.ln_f.bias.copy_(always)
        model.lm_head.weight[token_id] = 30 * always  # 30 at any time
        model.lm_head.weight[0] = seen  # 32 after the word, less after all others
    save_model(folder, model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (
        TEMPLATE  # a server renders with the tokenizer's template, and refuses to chat without one
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The base URL, and the model it serves."""
    model = model_that_says("8", tmp_path / "says-8")
    port = free_port()
    hub = tmp_path / "hf" / "hub"
    hub.mkdir(parents=True)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(hub.parent), "OMP_NUM_THREADS": "1"}
    serve = "from transformers.cli.transformers import main; main()"
    words = [sys.executable, "-c", serve, "serve", str(model), "--device", "cpu", "--dtype", "float32"]
    with (tmp_path / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [*words, "--host", "127.0.0.1", "--port", str(port)], env=environment, stdout=log, stderr=log
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, tmp_path / "serve.log")
        yield f"http://127.0.0.1:{port}/v1", model
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.slow
def test_transformers_serve_is_a_judge(server: tuple[str, Path], tmp_path: Path) -> None:
    url, model = server
    settings = JudgeSettings(backend="openai", model=str(model), base_url=url, max_tokens=16, control_rows=1)

    [entry] = judge_responses(ITEMS, settings, tmp_path)["judges"]

    assert (entry["scores"]["tuned"]["mean"], entry["scores"]["tuned"]["n"]) == (8, 3)
    assert entry["prompt_tokens"] > 1000 and entry["completion_tokens"] == 2 * entry["requests"]
    assert "the reference itself gets 8 on average" in entry["controls"]["text"]  # it always says 8

    [entry] = judge_responses(ITEMS, settings, tmp_path)["judges"]
    assert entry["requests"] == 0

    # Cut after one token, an 8 may be the beginning of 85; nothing is made of it.
    shorter = JudgeSettings(backend="openai", model=str(model), base_url=url, max_tokens=1, control_rows=1)
    entry = judge_responses(ITEMS, shorter, tmp_path)["judges"][-1]
    assert (entry["scores"]["tuned"]["mean"], entry["scores"]["tuned"]["failures"]) == (None, {"cut": 3})
    failed = run_folder.read_lines(tmp_path / "judge.jsonl")[-1]
    assert (failed["raw"], failed["score"]) == ("8", None)
