"""What the real clients see of the loopback hub, each from a fresh cache."""

import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from world.loopback_hub import environment, file_url, serve

# One child process for all that needs the libraries, since it takes them seconds to import.
CHILD = """
import json
import sys
from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

root, url = Path(sys.argv[1]), sys.argv[2]
data, gpt2 = root / "datasets/lamini/lamini_docs/data", root / "models/tiny/gpt2"

data.mkdir(parents=True)
train = {"question": ["1+2?", "2+2?"], "answer": ["3", "4"]}
Dataset.from_dict(train).to_parquet(data / "train-00000-of-00001.parquet")
test = {"question": ["3+2?"], "answer": ["5"]}
Dataset.from_dict(test).to_parquet(data / "test-00000-of-00001.parquet")

shape = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 8, "vocab_size": 3}
model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0))
model.save_pretrained(gpt2)
weights = model.state_dict()
words = Tokenizer(WordLevel({"<unk>": 0, "hello": 1, "world": 2}, unk_token="<unk>"))
words.pre_tokenizer = Whitespace()
PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(gpt2)
loaded = AutoModelForCausalLM.from_pretrained("tiny/gpt2").state_dict()

api = HfApi()


def error(call):
    try:
        call()
    except HfHubHTTPError as raised:
        return type(raised).__name__


seen = {
    "parquet": {split: rows.to_list() for split, rows in load_dataset("lamini/lamini_docs").items()},
    "streamed": list(load_dataset("lamini/lamini_docs", split="test", streaming=True)),
    "jsonl": {split: rows.to_list() for split, rows in load_dataset("tiny/sums").items()},
    "url": load_dataset("json", data_files=url, split="train").to_list(),
    "equal weights": [name for name, made in weights.items() if torch.equal(made, loaded[name])],
    "weights": list(loaded),
    "input_ids": AutoTokenizer.from_pretrained("tiny/gpt2")("world hello")["input_ids"],
    "errors": {
        "no/such": error(lambda: api.model_info("no/such")),
        "such": error(lambda: api.model_info("such")),
        "revision": error(lambda: api.hf_hub_download("tiny/gpt2", "config.json", revision="v1")),
        "file": error(lambda: api.hf_hub_download("tiny/gpt2", "absent.json")),
        "folder": error(lambda: list(api.list_repo_tree("tiny/gpt2", "absent"))),
    },
    "branches": [branch.name for branch in api.list_repo_refs("tiny/gpt2").branches],
    "top": [entry.path for entry in api.list_repo_tree("lamini/lamini_docs", repo_type="dataset")],
    "files": api.list_repo_files("lamini/lamini_docs", repo_type="dataset"),
}
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("loopback_hub")
    write(folder / "root/datasets/tiny/sums/sums.jsonl", '{"question": "4+2?", "answer": "6"}\n')
    write(folder / "root/files/sums.json", '[{"question": "5+2?", "answer": "7"}]')
    with serve(folder / "root") as endpoint:
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(folder / "root"), file_url(endpoint, "sums.json")],
            env=environment(endpoint, folder / "cache") | {"OMP_NUM_THREADS": "1"},
            cwd=folder,
            capture_output=True,
            text=True,
        )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout.splitlines()[-1])


def test_a_dataset_id_loads_with_its_splits(seen: Any) -> None:
    train = [{"question": "1+2?", "answer": "3"}, {"question": "2+2?", "answer": "4"}]
    assert seen["parquet"] == {"train": train, "test": [{"question": "3+2?", "answer": "5"}]}


def test_a_streamed_dataset_has_the_same_rows(seen: Any) -> None:
    assert seen["streamed"] == [{"question": "3+2?", "answer": "5"}]


def test_a_dataset_of_one_jsonl_file_loads_as_train(seen: Any) -> None:
    assert seen["jsonl"] == {"train": [{"question": "4+2?", "answer": "6"}]}


def test_a_json_file_loads_by_its_url(seen: Any) -> None:
    assert seen["url"] == [{"question": "5+2?", "answer": "7"}]


def test_a_model_id_loads_with_equal_weights(seen: Any) -> None:
    assert "transformer.h.1.mlp.c_fc.weight" in seen["weights"]
    assert seen["equal weights"] == seen["weights"]


def test_a_tokenizer_id_encodes_with_its_own_words(seen: Any) -> None:
    assert seen["input_ids"] == [2, 1]


def test_what_is_not_there_raises_the_error_of_its_kind(seen: Any) -> None:
    assert seen["errors"] == {
        "no/such": "RepositoryNotFoundError",
        "such": "RepositoryNotFoundError",
        "revision": "RevisionNotFoundError",
        "file": "RemoteEntryNotFoundError",
        "folder": "RemoteEntryNotFoundError",
    }


def test_a_repository_lists_its_branch_folders_and_files(seen: Any) -> None:
    assert seen["branches"] == ["main"]
    assert seen["top"] == ["data"]
    assert seen["files"] == ["data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[http.client.HTTPConnection]:
    write(tmp_path / "secret.txt", "secret")
    write(tmp_path / "root/files/alphabet.txt", "abcdefghij")
    write(tmp_path / "root/models/tiny/gpt2/config.json", "{}")
    with serve(tmp_path / "root") as endpoint:
        connection = http.client.HTTPConnection(urlsplit(endpoint).netloc)
        yield connection
        connection.close()


@pytest.mark.parametrize(
    "path",
    [
        "/files/../../secret.txt",
        "/files/%2e%2e/%2e%2e/secret.txt",
        "/files/..%2f..%2fsecret.txt",
        "/tiny/gpt2/resolve/main/../../../../secret.txt",
        "/../../resolve/main/secret.txt",
        "/api/models/../..",
        "/api/models/tiny/gpt2/tree/main/..",
    ],
)
def test_a_path_that_climbs_is_refused(connection: http.client.HTTPConnection, path: str) -> None:
    connection.request("GET", path)
    response = connection.getresponse()
    assert response.status in (401, 404)
    assert response.read() == b""


def test_an_absolute_path_is_refused(connection: http.client.HTTPConnection, tmp_path: Path) -> None:
    connection.request("GET", f"/files/{tmp_path}/secret.txt")
    assert connection.getresponse().status == 404


def test_a_head_tells_commit_etag_and_length_without_a_body(connection: http.client.HTTPConnection) -> None:
    connection.request("HEAD", "/tiny/gpt2/resolve/main/config.json")
    response = connection.getresponse()
    assert response.read() == b""
    assert response.headers["Content-Length"] == "2"
    assert response.headers["ETag"] == '"9e26dfeeb6e641a33dae4961196235bdb965b21b"'  # git hash-object
    assert len(response.headers["X-Repo-Commit"]) == 40


@pytest.mark.parametrize(
    ("wanted", "span", "part"),
    [
        ("bytes=2-4", "bytes 2-4/10", b"cde"),
        ("bytes=8-", "bytes 8-9/10", b"ij"),
        ("bytes=8-99", "bytes 8-9/10", b"ij"),
    ],
)
def test_a_range_gets_its_part(
    connection: http.client.HTTPConnection,
    wanted: str,
    span: str,
    part: bytes,
) -> None:
    connection.request("GET", "/files/alphabet.txt", headers={"Range": wanted})
    response = connection.getresponse()
    assert (response.status, response.headers["Content-Range"], response.read()) == (206, span, part)


def test_a_changed_file_is_a_new_commit(connection: http.client.HTTPConnection, tmp_path: Path) -> None:
    before = commit(connection)
    write(tmp_path / "root/models/tiny/gpt2/config.json", '{"n_layer": 2}')
    assert commit(connection) != before


def test_a_child_inherits_neither_token_nor_offline_switch_nor_proxy(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name in ("HF_TOKEN", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "https_proxy"):
        monkeypatch.setenv(name, "1")
    given = environment("http://127.0.0.1:8000", tmp_path)
    assert given["PATH"] == os.environ["PATH"]
    ours = re.compile(".*_PROXY$|(HF|TRANSFORMERS)_", re.IGNORECASE)
    assert {name: value for name, value in given.items() if ours.match(name)} == {
        "HF_ENDPOINT": "http://127.0.0.1:8000",
        "HF_HOME": str(tmp_path),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HTTP_PROXY": "http://127.0.0.1:8000",
        "HTTPS_PROXY": "http://127.0.0.1:8000",
        "NO_PROXY": "127.0.0.1,localhost",
    }


def commit(connection: http.client.HTTPConnection) -> str:
    connection.request("GET", "/api/models/tiny/gpt2")
    sha: str = json.load(connection.getresponse())["sha"]
    return sha


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
