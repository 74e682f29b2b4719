"""From the texts of a row to what a judge is asked. The words are in prompts/judge; here are the laws they obey.

- A template shows every text that the verdict depends on, and the answers between lines with the marker.
- The marker is a hash of all texts shown. Whoever writes an answer cannot foresee it, since their own words change it;
  so no secret is needed, and the same texts give the same request, which the cache and a second reader can find again.
- Control tokens in the texts (`<|im_end|>` and their kin) are broken by a space.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from heed.errors import UserError
from heed.files.hashes import json_sha256
from heed.saying import writable
from heed.shipped import SHIPPED

PROMPTS = SHIPPED / "prompts" / "judge"
FIXED = ("system", "reminder", "reask")
"""Templates that go around every prompt."""
JUDGED = {"score": ("response",), "pair": ("first", "second")}
CONTROL_TOKEN = re.compile(r"<(?=[|｜]|/?s>|(?:start|end)_of_turn>|[be]os>|/?think>)|\[(?=/?INST\])")
ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined)

Kind = Literal["score", "pair"]

Message = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a judge is asked about one row, for every kind of judge: as messages, and as a typed question."""

    kind: Kind
    reply: Literal["json", "number"]
    messages: tuple[Message, ...]
    """System and user; a chat model is asked these."""
    reask: str
    """What it is told, once, when its reply cannot be read."""
    texts: dict[str, str]
    question: str | None
    options: dict[Any, str] | None
    """Anchors of a score or options of a pair, for judges that choose one of them; None where the prompt has none."""

    @property
    def schema(self) -> dict[str, Any] | None:
        """The JSON schema of the reply; None for a prompt that wants a bare number."""
        if self.reply == "number":
            return None
        if self.kind == "score":
            verdict: dict[str, Any] = {"score": {"type": "integer", "minimum": 0, "maximum": 100}}
        else:
            verdict = {"winner": {"type": "string", "enum": ["A", "B", "tie"]}}
        return {
            "type": "object",
            "properties": {"reasoning": {"type": "string"}, **verdict},
            "required": ["reasoning", *verdict],
            "additionalProperties": False,
        }


@dataclass(frozen=True, kw_only=True)
class JudgePrompt:
    """A template that has been checked, with all that goes around it."""

    name: str
    kind: Kind
    templates: dict[str, str]
    """`prompt` itself, and the fixed ones."""

    @property
    def sha256(self) -> str:
        return json_sha256(self.templates)

    def ask(self, texts: Mapping[str, str]) -> Question:
        """The question about `texts`: instruction, input, reference, and response or first and second."""
        plain = {name: break_control_tokens(text) for name, text in texts.items()}
        marker = marker_of(plain)
        module = self._module("prompt", {**plain, "marker": marker})
        reply: Literal["json", "number"] = getattr(module, "reply", "json")
        around = {"marker": marker, "kind": self.kind, "reply": reply}
        user = f"{str(module).strip()}\n\n{self._text('reminder', around)}"
        options = getattr(module, "anchors" if self.kind == "score" else "options", None)
        return Question(
            kind=self.kind,
            reply=reply,
            messages=(
                {"role": "system", "content": self._text("system", around)},
                {"role": "user", "content": user},
            ),
            reask=self._text("reask", around),
            texts=plain,
            question=getattr(module, "question", None),
            options=dict(options) if options else None,
        )

    def _text(self, template: str, values: Mapping[str, str]) -> str:
        return str(self._module(template, values)).strip()

    def _module(self, template: str, values: Mapping[str, str]) -> Any:
        try:
            return compiled(self.templates[template]).make_module(dict(values))
        except TemplateError as error:
            known = ", ".join(sorted(values))
            raise UserError(f"judge prompt {self.name!r}: {error}; it may use {known}") from error


@lru_cache
def compiled(text: str) -> Any:
    return ENVIRONMENT.from_string(text)  # jinja2 itself remembers files only


def load_judge_prompt(name: str, kind: Kind) -> JudgePrompt:
    """The template `name` (a file in prompts/judge or a path to a .jinja), its laws checked on probe texts.

    Raises UserError naming the law that is broken.
    """
    path = Path(name) if name.endswith(".jinja") else PROMPTS / f"{name}.jinja"
    known = sorted(path.stem for path in PROMPTS.glob("*.jinja") if path.stem not in FIXED)
    if not path.is_file() or name in FIXED:
        raise UserError(f"judge prompt: {name!r} is neither one of {', '.join(known)} nor a .jinja file")
    try:
        templates = {each: (PROMPTS / f"{each}.jinja").read_text(encoding="utf-8") for each in FIXED}
        prompt = JudgePrompt(name=name, kind=kind, templates={**templates, "prompt": path.read_text(encoding="utf-8")})
    except UnicodeDecodeError as error:
        raise UserError(f"judge prompt {name!r}: not UTF-8 text ({error})") from error
    check(prompt)
    return prompt


def check(prompt: JudgePrompt) -> None:
    """Render probes, and see that every text is shown and every judged one fenced."""
    judged = JUDGED[prompt.kind]
    probes = {field: f"The {field} of a probe." for field in ("instruction", "input", "reference", *judged)}
    question = prompt.ask(probes)
    shown, marker = question.messages[-1]["content"], marker_of(probes)
    for field, text in probes.items():
        if text not in shown:
            raise UserError(f"judge prompt {prompt.name!r}: it does not show {{{{ {field} }}}}")
    body = shown.removesuffix(prompt._text("reminder", around_of(question, marker)))
    for field in judged:
        before, _, after = body.partition(probes[field])
        if marker not in before or marker not in after:
            raise UserError(
                f"judge prompt {prompt.name!r}: fence {{{{ {field} }}}}, so that it cannot pass for an instruction: "
                f"put a line with {{{{ marker }}}} before and after it"
            )
    if question.reply not in ("json", "number"):
        raise UserError(f"judge prompt {prompt.name!r}: reply is {question.reply!r}; set it to 'json' or 'number'")
    if prompt.kind == "pair" and question.reply == "number":
        raise UserError(f"judge prompt {prompt.name!r}: a pair has no number; leave reply out")


def around_of(question: Question, marker: str) -> dict[str, str]:
    return {"marker": marker, "kind": question.kind, "reply": question.reply}


def break_control_tokens(text: str) -> str:
    """`<|im_end|>` becomes `< |im_end|>`: a reader sees the same, a tokenizer sees no end of a turn."""
    return CONTROL_TOKEN.sub(lambda match: f"{match[0]} ", writable(text))


def marker_of(texts: Mapping[str, str]) -> str:
    return json_sha256(dict(texts))[:16]
