"""How Ollama is told to run a file: its template in Go's language, its stops, greedy answers."""

import json
import re
from itertools import product
from typing import Any

from heed.data.records import Message
from heed.errors import UserError
from heed.prompts.template import Contract, Prompt, puts_bos

# Ollama's own defaults sample, and penalize repetition, which changes greedy answers too.
GREEDY = {"temperature": 0, "top_k": 1, "repeat_penalty": 1}
GO = """\
{{- range $place, $message := .Messages }}
{{- if eq .Role "system" }}{{ %(system)s }}{{ .Content }}{{ %(after_system)s }}
{{- else if eq .Role "assistant" }}{{ %(assistant)s }}{{ .Content }}{{ %(after_assistant)s }}
{{- else }}{{ if eq $place 0 }}{{ %(first)s }}{{ else }}{{ %(user)s }}{{ end }}{{ .Content }}{{ %(after_user)s }}
{{- end }}
{{- end }}
{{- %(answer)s }}"""
TRIMS = "{{- /* The run's template takes spaces off the ends of texts, and this one does not. */ -}}\n"
ROLES: dict[str, Any] = {"s": "system", "u": "user", "a": "assistant"}
SAID = re.compile("(?:system|user|assistant) said this")
# What shows whether a template writes texts as they are: it may trim them, take thoughts away, leave empty turns out.
ORDERS = ("u", "su", "uau", "suau", "uauau")
TEXTS = (
    "this",
    "",
    " with\tspaces\n ",
    '{{ .Role }} "quoted" `a` \\n <b> & \xe9',
    "<think>\nso\n</think>\n\nthus",
    "\n1\n2\n",
)


def modelfile(file: str, prompt: Prompt, contract: Contract) -> str | None:
    """None where the prompt cannot be said in Go's language: Ollama would guess, and ask as nobody asked the run."""
    template = go_template(prompt)
    if template is None:
        return None
    stops = prompt.tokenizer.convert_ids_to_tokens(contract.stop_token_ids)
    lines = [
        f"FROM ./{file}",
        f'TEMPLATE """{template}"""',
        *(f"PARAMETER {name} {value}" for name, value in GREEDY.items()),
    ]
    return "\n".join([*lines, *(f'PARAMETER stop "{stop}"' for stop in stops)]) + "\n"


def go_template(prompt: Prompt) -> str | None:
    """What the prompt writes around each text, read off from what it writes; None where it does more, but for trimming.

    A BOS is not in it where the tokenizer puts one, since llama.cpp does too.
    """
    tokenizer = prompt.tokenizer
    bos = str(tokenizer.bos_token) if puts_bos(tokenizer) and tokenizer.bos_token != tokenizer.eos_token else ""

    def text(messages: list[Message], *, generation_prompt: bool = True) -> str:
        return prompt.render(messages, generation_prompt=generation_prompt).removeprefix(bos)

    def around(order: str, *, generation_prompt: bool = True) -> list[str]:
        said = conversation(order, [f"{ROLES[role]} said this" for role in order])
        return SAID.split(text(said, generation_prompt=generation_prompt))

    try:
        (first, ending), (_, after_user) = around("u"), around("u", generation_prompt=False)
        (system, between, _), (_, reply, after_assistant) = around("su"), around("ua", generation_prompt=False)
        user = around("uau")[2].removeprefix(after_assistant)
        pieces = {
            "system": system,
            "after_system": between.removesuffix(user),
            "first": first,
            "user": user,
            "after_user": after_user,
            "assistant": reply.removeprefix(after_user),
            "after_assistant": after_assistant,
            "answer": ending.removeprefix(after_user),
        }
        tried = [(said, conversation(order, [said] * len(order))) for said, order in product(TEXTS, ORDERS)]
        wrong = [said for said, messages in tried if written(messages, pieces) != text(messages)]
    except (UserError, ValueError):  # a role is refused; a text stands there twice, or not at all
        return None
    if any(said == said.strip() for said in wrong):
        return None
    return (TRIMS if wrong else "") + GO % {
        name: json.dumps(piece, ensure_ascii=False) for name, piece in pieces.items()
    }


def conversation(order: str, texts: list[str]) -> list[Message]:
    return [{"role": ROLES[role], "content": said} for role, said in zip(order, texts, strict=True)]


def written(messages: list[Message], pieces: dict[str, str]) -> str:
    """What `GO` writes."""
    before = [pieces[each["role"]] for each in messages]
    if messages[0]["role"] == "user":
        before[0] = pieces["first"]
    after = [pieces[f"after_{each['role']}"] for each in messages]
    turns = zip(before, (each["content"] for each in messages), after, strict=True)
    return "".join(map("".join, turns)) + pieces["answer"]
