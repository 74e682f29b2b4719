"""What every test runs in: the repository as working folder, its own cache, no network."""

import gc
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any import that reads it

from collections.abc import Iterator
from pathlib import Path

import datasets
import nltk  # noqa: F401 - its downloader keeps the stderr of its import, which a test would close behind itself
import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from faults.harness import Forks, write_config
from world.browser import chromium as chromium
from world.small_world import MODELS, ROOT, gpt2, save_model, tiny_tokenizer


@pytest.fixture(autouse=True, scope="session")
def in_the_repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(autouse=True, scope="session")
def modules_are_no_garbage() -> None:
    """Trainer collects garbage at each start, which looks at every object, and imports have made a great many."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a run that was interrupted after its checkpoint of step 4; its folder is beside it."""
    from world.short_run import interrupt

    config = write_config(tmp_path_factory.mktemp("stopped"))
    interrupt(config)
    return config


@pytest.fixture(scope="session")
def forks() -> Forks:
    return Forks()


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return tiny_tokenizer()


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A random GPT-2, then a random GPT-NeoX."""
    return MODELS[request.param]()


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "random-gpt2", gpt2())
