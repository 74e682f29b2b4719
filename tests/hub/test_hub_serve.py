"""A pushed folder, fetched again, in `transformers serve`: an OpenAI client gets the answers that Heed gets."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

import train_sft
from faults.harness import free_port
from heed.answers.generation import generate
from heed.answers.subjects import find_prompt, load_subject
from heed.data.records import Message
from heed.errors import exit_code
from heed.runs.finished import Subject
from world.loopback_hub import WRITE_TOKEN, environment, running
from world.small_world import ROOT
from world.waiting import wait_for

QUESTIONS = ["Which colour does grass have?", "What do you call a young seal?"]
FETCH = "import sys; from huggingface_hub import snapshot_download; print(snapshot_download('tester/tiny'))"


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model, tuned for 30 steps, pushed, and fetched into a cache."""
    with running(tmp_path / "hub") as hub:
        variables = environment(hub.endpoint, tmp_path / "cache") | {"OMP_NUM_THREADS": "1", "HF_TOKEN": WRITE_TOKEN}
        monkeypatch.delenv("HF_HUB_OFFLINE")
        for name in ("HF_ENDPOINT", "HF_HOME", "HF_TOKEN", "NO_PROXY"):
            monkeypatch.setenv(name, variables[name])
        words = ["--config", "configs/tiny.yaml", "--output_dir", str(tmp_path / "run"), "--eval_strategy", "no"]
        words += ["--push_to_hub", "true", "--hub_model_id", "tester/tiny", "--save_strategy", "no"]
        assert exit_code(lambda: train_sft.main([*words, "--num_train_epochs", "0.5"])) == 0
        done = subprocess.run([sys.executable, "-c", FETCH], env=variables, capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


@pytest.fixture
def server(fetched: Path, tmp_path: Path) -> Iterator[str]:
    port = free_port()
    (tmp_path / "home" / "hub").mkdir(parents=True)
    variables = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    serve = "from transformers.cli.transformers import main; main()"
    words = [sys.executable, "-c", serve, "serve", str(fetched), "--device", "cpu", "--dtype", "float32"]
    with (tmp_path / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [*words, "--host", "127.0.0.1", "--port", str(port)], env=variables, stdout=log, stderr=log, cwd=ROOT
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, tmp_path / "serve.log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.slow
def test_a_pushed_model_is_served_as_it_is_and_answers_the_same(server: str, fetched: Path) -> None:
    assert not (fetched / "optimizer.pt").exists()
    prompt, contract = find_prompt(str(fetched), None, None)
    conversations: list[list[Message]] = [[{"role": "user", "content": question}] for question in QUESTIONS]
    ours = generate(
        load_subject(Subject(name="tuned", model=str(fetched)), dtype="float32", bits=None),
        prompt,
        [prompt.encode_prompt(messages) for messages in conversations],
        stop_token_ids=contract.stop_token_ids,
        batch_size=1,
        max_new_tokens=32,
        engine="one",
        say=lambda text: None,
    )
    client = OpenAI(base_url=server, api_key="none", max_retries=0)
    for question, response in zip(QUESTIONS, ours, strict=True):
        completion = client.chat.completions.create(
            model=str(fetched),
            messages=[{"role": "user", "content": question}],
            temperature=0,
            max_tokens=32,
        )
        assert completion.choices[0].message.content == response.text
        assert response.text
