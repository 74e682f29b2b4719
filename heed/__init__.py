"""Heed: instruction-tune causal language models, and show whether they learned to follow instructions.

From Python, as in a notebook, three scripts are functions:

    run = heed.train("configs/csv.yaml", data="my_rows.csv", output_dir="runs/mine")
    rows = heed.evaluate(run, compare_with_base=True)
    ask = heed.chat(run)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heed.notebook import chat, evaluate, train

__all__ = ["__version__", "chat", "evaluate", "train"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'heed' has no attribute {name!r}")
    from heed import notebook  # heavy, and most who import Heed want a room of it

    return getattr(notebook, name)
