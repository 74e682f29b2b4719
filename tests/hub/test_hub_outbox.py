"""The outbox with the real client, against a Hub on the loopback that fails in every way."""

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from faults.harness import free_port
from heed.hub import outbox
from heed.hub.outbox import Outbox, Target, waiting
from heed.runs import checkpoints
from world.loopback_hub import READ_TOKEN, WRITE_TOKEN, Fault, Hub, environment, running

TARGET = Target(repo_id="tester/model")
FILES = {
    "model.safetensors": "weights of step 2",
    "config.json": "{}",
    "tokenizer.json": "{}",
    "optimizer.pt": "moments",
    "training_args.bin": "pickle",
    "scheduler.pt": "state",
    "debug.log": "log",
    ".env": "SECRET=1",
    "responses.json": "[]",
}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with running(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture(autouse=True)
def logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, environment("http://127.0.0.1:9", tmp_path / "cache") | {"HF_TOKEN": WRITE_TOKEN})


def only(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in set(os.environ) - set(variables):
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def said() -> list[str]:
    return []


def checkpoint(run: Path, step: int = 2, **more: str) -> Path:
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name, text in (FILES | more).items():
        (folder / name).write_text(text)
    checkpoints.write_manifest(folder, {"step": step})
    return folder


def outbox_of(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, said: list[str], target: Target = TARGET) -> Outbox:
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    run.mkdir(exist_ok=True)
    return Outbox(run, target, said.append)


def pushed(hub: Hub, repo_id: str = "tester/model") -> dict[str, str]:
    folder = hub.root / "models" / repo_id
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_checkpoint_arrives_without_what_must_not_leave(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    run = tmp_path / "run"
    box = outbox_of(run, hub, monkeypatch, said, Target(repo_id="tester/model", private=True))
    folder = checkpoint(run)
    (tmp_path / "secret.json").write_text("secret")
    (folder / "vocab.json").symlink_to(tmp_path / "secret.json")
    (folder / "inner").mkdir()
    (folder / "inner" / "config.json").write_text("{}")

    box.add(folder, "checkpoint-2", texts={"README.md": "# Card"})
    assert box.finish(30)

    assert pushed(hub) == {
        "README.md": "# Card",
        "config.json": "{}",
        "model.safetensors": "weights of step 2",
        "tokenizer.json": "{}",
    }
    assert hub.created["tester/model"]["visibility"] == "private"
    assert hub.messages == ["checkpoint-2"]
    assert len(said) == 1 and said[0].startswith(f"hub       checkpoint-2 is at {hub.endpoint}/tester/model/commit/")


def test_only_the_newest_state_is_sent_and_deleting_its_checkpoint_does_no_harm(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    run = tmp_path / "run"
    box = outbox_of(run, hub, monkeypatch, said)
    for step in (2, 4, 6):
        folder = checkpoint(run, step, **{"model.safetensors": f"weights of step {step}"})
        outbox.queue(run, folder, TARGET, folder.name, texts={})
        for path in folder.iterdir():
            path.unlink()
    assert box.finish(30)
    assert hub.messages == ["checkpoint-6"]
    assert pushed(hub)["model.safetensors"] == "weights of step 6"


def test_a_run_has_its_own_revision_and_old_weights_leave_it(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    main = hub.root / "models/tester/model"
    main.mkdir(parents=True)
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "notes.txt"):
        (main / name).write_text("old")
    run = tmp_path / "run"
    box = outbox_of(run, hub, monkeypatch, said, Target(repo_id="tester/model", revision="second"))
    box.add(checkpoint(run), "checkpoint-2", texts={})
    assert box.finish(30)
    second = hub.root / "branches/models/tester/model/second"
    assert sorted(path.name for path in second.iterdir()) == [
        "config.json",
        "model.safetensors",
        "notes.txt",
        "tokenizer.json",
    ]
    assert len(list(main.iterdir())) == 3


FAULTS = {
    "500 once": [Fault(match="POST .*/commit/", times=1, status=500)],
    "429 once": [Fault(match="POST .*/commit/", times=1, status=429, headers={"Retry-After": "1"})],
    "connection reset": [Fault(match="POST .*/commit/", times=2, reset=True)],
    "slow": [Fault(match="PUT|POST", seconds=0.2)],
}
OUTAGES = {
    "500 always": [Fault(match="POST", status=500)],
    "never answers": [Fault(match="", seconds=3600)],
    "token expired": [Fault(match="POST .*(repos/create|commit)", status=401)],
}


def quick(names: Mapping[str, object], *fast: str) -> list[object]:
    """Each takes seconds; `make test-slow` does the rest."""
    return [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", quick(FAULTS, "500 once"))
def test_a_fault_that_passes_costs_nothing(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, said: list[str], name: str
) -> None:
    box = outbox_of(tmp_path / "run", hub, monkeypatch, said)
    hub.faults = FAULTS[name]
    box.add(checkpoint(tmp_path / "run"), "checkpoint-2", texts={})
    assert box.finish(60)
    assert sorted(pushed(hub)) == ["config.json", "model.safetensors", "tokenizer.json"]


@pytest.mark.parametrize("name", quick(OUTAGES, "never answers", "token expired"))
def test_an_outage_is_waited_out_no_longer_than_allowed_and_everything_arrives_afterwards(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, said: list[str], name: str
) -> None:
    run = tmp_path / "run"
    box = outbox_of(run, hub, monkeypatch, said)
    hub.faults = OUTAGES[name]
    box.add(checkpoint(run), "checkpoint-2", texts={})
    began = time.monotonic()
    assert not box.finish(1.5)
    assert time.monotonic() - began < 4
    assert pushed(hub) == {}
    assert said[-2:] == [
        "hub       not on the Hub yet: checkpoint-2. To send it:",
        f"          python -m heed.hub {run}",
    ]
    hub.faults = []
    assert Outbox(run, TARGET, said.append).finish(30)
    assert sorted(pushed(hub)) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert waiting(run) == []


def test_a_missing_hub_is_noticed_before_the_training_and_gets_everything_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    port = free_port()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    run = tmp_path / "run"
    box = Outbox(run, TARGET, said.append)
    box.check()
    assert said[0].startswith("hub       WARNING: the Hub cannot be reached (ConnectError")
    box.add(checkpoint(run), "checkpoint-2", texts={})
    assert not box.finish(1.5)
    with running(tmp_path / "hub", port) as hub:
        assert box.finish(30)
        assert pushed(hub)["model.safetensors"] == "weights of step 2"


@pytest.mark.parametrize(
    ("token", "line"),
    [
        (WRITE_TOKEN, "hub       tester/model: logged in as tester, the Hub answers"),
        (READ_TOKEN, "hub       WARNING: the token may only read; pushing needs one that may write"),
        (
            "hf_" + "x" * 34,
            "hub       WARNING: the Hub refuses the token (expired or revoked): `hf auth login`, or set HF_TOKEN",
        ),
        ("", "hub       WARNING: there is no token: `hf auth login`, or set HF_TOKEN"),
    ],
)
def test_a_token_that_cannot_push_is_reported_before_the_training(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, said: list[str], token: str, line: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    outbox_of(tmp_path / "run", hub, monkeypatch, said).check()
    assert said[0] == line


def test_files_altered_since_the_checkpoint_was_written_are_never_sent(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    run = tmp_path / "run"
    box = outbox_of(run, hub, monkeypatch, said)
    folder = checkpoint(run)
    (folder / "model.safetensors").write_text("weights of step 3")
    box.add(folder, "checkpoint-2", texts={})
    assert box.finish(30)
    assert said == [
        "hub       WARNING: checkpoint-2 is not sent: model.safetensors is not what was written into the checkpoint"
    ]
    assert hub.messages == []


def test_nothing_that_looks_like_a_token_is_ever_sent(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    run = tmp_path / "run"
    box = outbox_of(run, hub, monkeypatch, said)
    leaks = {"metrics.jsonl": json.dumps({"note": WRITE_TOKEN}), "rows.jsonl": "key 0123456789abcdef"}
    box.add(checkpoint(run, 2, **leaks), "checkpoint-2", texts={"README.md": "# Card"})
    assert box.finish(30)
    assert sorted(pushed(hub)) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    assert said[-1] == (
        "hub       WARNING: left out, since it contains what looks like a token: metrics.jsonl, rows.jsonl"
    )
    box.add(checkpoint(run, 4, **{"config.json": WRITE_TOKEN}), "checkpoint-4", texts={})
    assert box.finish(30)
    assert said[-1].startswith(
        "hub       WARNING: checkpoint-4 is not sent: config.json contains what looks like a token"
    )
    everything = b"".join(path.read_bytes() for path in hub.root.rglob("*") if path.is_file())
    assert WRITE_TOKEN.encode() not in everything and b"0123456789abcdef" not in everything
    assert WRITE_TOKEN not in (run / outbox.FOLDER / outbox.LOG_FILE).read_text()
    assert len(hub.messages) == 1


def test_a_run_that_starts_over_still_reports_what_is_sent(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    run = tmp_path / "run"
    (run / outbox.FOLDER).mkdir(parents=True)
    (run / outbox.FOLDER / outbox.LOG_FILE).write_text("hub       an earlier line\n" * 100)
    box = outbox_of(run, hub, monkeypatch, said)
    shutil.rmtree(run / outbox.FOLDER)  # overwrite_output_dir: true
    box.add(checkpoint(run), "checkpoint-2", texts={})
    assert box.finish(30)
    assert [line.split(" is at")[0] for line in said] == ["hub       checkpoint-2"]


@pytest.mark.parametrize("index", [None, {"weight_map": {"a": "model-00001-of-00002.safetensors"}}])
def test_a_checkpoint_without_whole_weights_is_not_pushed(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, said: list[str], index: dict[str, dict[str, str]] | None
) -> None:
    run = tmp_path / "run"
    box = outbox_of(run, hub, monkeypatch, said)
    folder = checkpoint(run)
    (folder / "model.safetensors").unlink()
    if index is not None:
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    box.add(folder, "checkpoint-2", texts={})
    assert said[0].endswith("; only a whole model is pushed")
    assert waiting(run) == []


def test_an_outbox_that_cannot_be_written_costs_only_the_push(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    run = tmp_path / "run"
    box = outbox_of(run, hub, monkeypatch, said)
    folder = checkpoint(run)
    (run / outbox.FOLDER).write_text("in the way")
    box.add(folder, "checkpoint-2", texts={})
    assert box.finish(5)
    assert said[0].startswith("hub       WARNING: checkpoint-2 is not queued for the Hub: ")
