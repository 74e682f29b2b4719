"""Keys of chat.py."""

from dataclasses import dataclass
from typing import Literal

from heed.config.keys import key


@dataclass(frozen=True, kw_only=True)
class ChatConfig:
    """Keys of chat.py."""

    model: str = key(help="a run folder, a checkpoint in it, or any model folder or Hub id")
    model_revision: str | None = key(None, help="branch, tag or commit of a Hub model")
    base: str | None = key(None, help="what /base asks; null: the model it started from, where that is known")
    prompt: str | None = key(None, help="only for a model that brings no prompt contract")
    system: str | None = key(None, help="a system message to begin with")
    max_new_tokens: int = key(256, help="length limit of an answer")
    dtype: Literal["float32", "bfloat16", "float16"] = key("float32", help="type of the weights")
    load_in_4bit: bool | None = key(None, help="keep the base model in 4 bits; null: as the run was trained")
    load_in_8bit: bool | None = key(None, help="the same in 8 bits")
