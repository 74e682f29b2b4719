"""Three scripts as functions, with the same keys, for notebooks and other programs. `import heed` has them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from heed.commands import load
from heed.measure.rows import Row, read_rows
from heed.saying import guarded_output


def train(config: str | Path | None = None, **keys: Any) -> Path:
    """What train_sft.py does; gives the run's folder. Called again, it continues a run that was interrupted.

    Keys are those of docs/keys.md and TrainingArguments, in Python's values. Raises UserError for what can be mended.
    """
    from heed.config import parse_command_line
    from heed.training.arguments import read_config

    words = written(config, keys)
    with guarded_output():
        load("train_sft").main(words)
    return Path(read_config(parse_command_line(words, flags=())).settings["output_dir"].value)


def evaluate(model: str | Path, config: str | Path | None = None, **keys: Any) -> list[Row]:
    """What eval_responses.py does; gives every number that is now in the folder, each with its interval and its n."""
    from heed.config import EvalConfig, field_types, parse_command_line, read_settings

    words = written(config, {"model_name_or_path": model} | keys)
    with guarded_output():
        load("eval_responses").main(words)
    told = read_settings(parse_command_line(words, flags=()), field_types(EvalConfig))
    return read_rows(Path(told["output_dir"].value if "output_dir" in told else model))


def chat(model: str | Path, **keys: Any) -> Callable[[str], str]:
    """Loads a model as chat.py does; gives a function that answers a question, knowing the earlier ones."""
    from heed.answers.conversation import Conversation
    from heed.answers.streaming import stream_answer
    from heed.config import ChatConfig

    script = load("chat")
    script.be_quiet()
    ours = ChatConfig(model=str(model), **keys)
    [(_, loaded, prompt, stops)] = script.Speakers(ours).asked()
    conversation = Conversation(ours.system)

    def ask(question: str) -> str:
        told = stream_answer(
            loaded,
            prompt,
            conversation.asked(question),
            stop_token_ids=stops,
            max_new_tokens=ours.max_new_tokens,
            write=lambda piece: None,
        )
        conversation.add(question, told.text)
        return told.text

    return ask


def written(config: str | Path | None, keys: dict[str, Any]) -> list[str]:
    """As one would type them."""
    named = {name: str(value) if isinstance(value, str | Path) else json.dumps(value) for name, value in keys.items()}
    return [*([f"--config={config}"] if config is not None else []), *(f"--{each}={named[each]}" for each in named)]
