"""One model while benchmarks are asked of it."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from heed.answers.subjects import load_subject
from heed.benchmarks.asking import Asking
from heed.models.loading import context_length
from heed.prompts.template import Prompt
from heed.runs.finished import Subject


class Loaded:
    """A subject whose weights are hashed once, and loaded once, by the first question that needs them."""

    def __init__(self, asking: Asking, subject: Subject) -> None:
        self.asking, self.subject = asking, subject
        self.key = asking.key(subject)
        self._held = ExitStack()
        self._model: Any = None
        self._place: tuple[str, int] | None = None

    def model(self) -> Any:
        if self._model is None:
            self._model = load_subject(self.subject, dtype=self.asking.dtype, bits=self.asking.bits)
        return self._model

    def place(self) -> tuple[str, int]:
        """Where another environment can load it from, and how many positions it has; here its memory is free then."""
        if self._place is None:
            model, subject = self.model(), self.subject
            positions = context_length(model)
            path = self._held.enter_context(
                whole_model(model, self.asking.prompt, subject.model, revision=subject.revision)
            )
            self._place = path, positions
        self._model = None
        return self._place

    def __enter__(self) -> "Loaded":
        return self

    def __exit__(self, *error: object) -> None:
        self._model = None  # the next one may need its memory
        self._held.close()


def place_of(model: str) -> str:
    """A folder by its whole path, for processes that run elsewhere; a Hub id as it is."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


@contextmanager
def whole_model(model: Any, prompt: Prompt, path: str, *, revision: str | None = None) -> Iterator[str]:
    """What another environment can load without peft: the model's own place, or a folder with the adapter merged in.

    A `revision` of the Hub goes through a folder too, since the other would load the newest one.
    """
    adapter = hasattr(model, "merge_and_unload")
    if not adapter and revision is None:
        del model  # the other environment loads its own
        yield place_of(path)
        return
    with tempfile.TemporaryDirectory(prefix="heed-merged-") as folder:
        whole = model.merge_and_unload() if adapter else model
        whole.save_pretrained(folder)
        prompt.tokenizer.save_pretrained(folder)
        del model, whole
        yield folder
