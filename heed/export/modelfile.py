"""How Ollama is told to run a file: its template in Go's language, its stops, greedy answers."""

import json
from pathlib import Path

from heed.prompts.template import BOS_LINE, PROMPTS, Contract, Prompt

# Ollama's own defaults sample, and penalize repetition, which changes greedy answers too.
GREEDY = {"temperature": 0, "top_k": 1, "repeat_penalty": 1}


def modelfile(file: str, prompt: Prompt, contract: Contract) -> str | None:
    """None where the prompt has no Go template beside it: Ollama would guess one, and ask as nobody asked the run."""
    template = go_template(prompt, contract)
    if template is None:
        return None
    stops = prompt.tokenizer.convert_ids_to_tokens(contract.stop_token_ids)
    lines = [
        f"FROM ./{file}",
        f'TEMPLATE """{template}"""',
        *(f"PARAMETER {name} {value}" for name, value in GREEDY.items()),
    ]
    return "\n".join([*lines, *(f'PARAMETER stop "{stop}"' for stop in stops)]) + "\n"


def go_template(prompt: Prompt, contract: Contract) -> str | None:
    """The file beside the prompt's own, with the tokenizer's EOS in front, which Go templates are not given.

    A BOS is not in it: llama.cpp puts one where the tokenizer does.
    """
    jinja = Path(contract.prompt) if contract.prompt.endswith(".jinja") else PROMPTS / f"{contract.prompt}.jinja"
    go = jinja.with_suffix(".gotmpl")
    if not go.is_file() or not jinja.is_file():
        return None
    text = jinja.read_text(encoding="utf-8")
    if contract.template not in (text, text.replace(BOS_LINE, "")):
        return None  # the prompt has changed since, and nobody has compared the Go template with the run's
    return f"{{{{- $eos := {json.dumps(prompt.tokenizer.eos_token)} }}}}" + go.read_text(encoding="utf-8").rstrip("\n")
