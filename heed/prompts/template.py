"""From messages to token ids: one template renders training text and generation prompt, and is saved with the model.

The laws a template must obey are checked once, when it is loaded:
- the prompt (messages up to the answer, with the generation prompt) is a prefix of the whole conversation's text;
- the prompt does not end in a space, which would merge with the answer's first token;
- the text does not depend on the day it is rendered.
What is learned then follows from lengths: what comes before an answer is tokenized separately, and nothing is
searched for.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import TemplateError

from heed.data.records import Message, Record, learned_turns
from heed.errors import UserError
from heed.files.run_folder import CONTRACT_FILE, read_json, write_json
from heed.prompts.control_tokens import Markers, control_token_pattern, mark_control_tokens, split_fenced
from heed.prompts.dates import reads_clock, with_fixed_date
from heed.prompts.probes import MORE, PLAIN_PROBE, PROBE, PROBE_ANSWER, PROBE_INPUT, PROBE_QUESTION, PROBES
from heed.prompts.rendering import PLAIN, Render, refuse_bomb, render, text_renderer
from heed.prompts.words import Encode, word_encoder
from heed.shipped import SHIPPED

if TYPE_CHECKING:  # heavy, and only named here
    from transformers import GenerationConfig, PreTrainedTokenizerBase

PROMPTS = SHIPPED / "prompts"
# How the templates of prompts/ begin. Only a tokenizer that itself puts a BOS before a text gets one: in SmolLM2 it is
# the mark before each turn, and would be there twice before the first.
BOS_LINE = "{% if bos_token and bos_token != eos_token %}{{ bos_token }}{% endif %}\n"


class Encoded(NamedTuple):
    """Ids, and the spans of them that the assistant wrote: [start, end), each ending in the token that stops."""

    input_ids: list[int]
    spans: list[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A template used with one tokenizer."""

    name: str
    """The name of a file in prompts/, a path, or "model" for the model's own chat template."""
    template: str
    tokenizer: "PreTrainedTokenizerBase"
    shows_input: bool
    """False for templates that know nothing of `input`; it is then put after the instruction."""
    control_tokens: re.Pattern[str]
    """Matches the texts that the tokenizer would turn into control tokens."""
    dated: bool
    """Whether the template asked for today's date, in whose place is DAY."""

    @cached_property
    def shown(self) -> frozenset[str]:
        """What of a turn beside its text the template shows, seen where it is tried."""
        return frozenset(name for name, (messages, words) in PROBES.items() if self._shows(name, messages, words))

    def _shows(self, name: str, messages: Sequence[Message], words: Sequence[str]) -> bool:
        def tried(turns: Sequence[Message]) -> str:
            try:
                return self.render(turns, generation_prompt=False)
            except UserError:
                return ""

        text = tried(messages)
        # What a tool says must not be taken for what a person or the model said.
        last = messages[-1]["content"]
        taken = [tried([*messages[:-1], {"role": role, "content": last}]) for role in ("user", "assistant")]
        return all(word in text for word in words) and (name != "tool" or text not in taken)

    @cached_property
    def marks(self) -> dict[str, int]:
        """Control tokens and their ids; not those that stand for letters which the tokenizer has no token for."""
        ids = {token.content: number for number, token in self.tokenizer.added_tokens_decoder.items()}
        unknown = {self.tokenizer.unk_token} - {self.tokenizer.eos_token} | {f"<0x{byte:02X}>" for byte in range(256)}
        return {mark: ids[mark] for mark in ids if mark not in unknown and self.control_tokens.fullmatch(mark)}

    @cached_property
    def control_ids(self) -> frozenset[int]:
        return frozenset(self.marks.values())

    @cached_property
    def _ids_of(self) -> Encode:
        return word_encoder(self.tokenizer)

    @cached_property
    def _render_texts(self) -> Render:
        return text_renderer(self.tokenizer, self.template)

    @cached_property
    def frame(self) -> tuple[str, str]:
        """What the template writes into an answer before its text (an empty think block), and after it."""
        prompt = self.render(PROBE[:-1], generation_prompt=True)
        before, _, after = self.render(PROBE, generation_prompt=False)[len(prompt) :].partition(PROBE_ANSWER)
        return before, after

    @cached_property
    def eos_token_id(self) -> int:
        """The token that ends an answer: the first control token that the template writes after it, or the
        tokenizer's EOS. Padding is the same token."""
        ends = self.control_tokens.findall(self.frame[1])
        return self.tokenizer.get_vocab()[ends[0]] if ends else int(self.tokenizer.eos_token_id)

    def answer_text(self, ids: Sequence[int]) -> str:
        """The text of what was written, without what the template itself writes before an answer."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).removeprefix(self.opening)

    @cached_property
    def opening(self) -> str:
        """What the template itself writes before an answer, as a decoder shows it."""
        return str(self.tokenizer.decode(self._tokenize(self.frame[0], None), skip_special_tokens=True))

    def render(self, messages: Sequence[Message], *, generation_prompt: bool) -> str:
        """The text of a conversation, with `generation_prompt` up to where the assistant begins to write."""
        if not self.shows_input:
            messages = [join_input(message) for message in messages]
        if all(map(PLAIN.issuperset, messages)):
            with suppress(TemplateError, TypeError):  # said below
                return self._render_texts(list(messages), generation_prompt)
        return render(self.tokenizer, self.template, messages, generation_prompt, self.name)

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids of everything before the answer; `messages` end with the user's turn."""
        marked, markers = mark_control_tokens(messages, self.control_tokens)
        earlier = [self.render(marked[:turn], generation_prompt=True) for turn in answers(marked)]
        text = self.render(marked, generation_prompt=True)
        refuse_final_space(text, self.name)
        return self._tokenize_apart(text, earlier, markers)

    def encode(self, messages: Sequence[Message]) -> Encoded:
        """Ids of a conversation that ends with the assistant's answer, which is the one span; see `encode_answers`."""
        [encoded] = self.encode_answers(messages, [len(messages) - 1])
        return encoded

    def encode_answers(self, messages: Sequence[Message], turns: Sequence[int]) -> list[Encoded]:
        """For each of the assistant's `turns`, the ids up to its end, which is the one span.

        What comes before an answer and the answer are tokenized separately, so the model sees in training exactly the
        prompt ids of generation; an earlier answer is so in what comes before a later one, as it was when it was given.
        User text is text: an `<|endoftext|>` typed in a row becomes ordinary tokens (sanitized control tokens).
        Raises UserError when the template breaks a law for this conversation.
        """
        marked, markers = mark_control_tokens(messages, self.control_tokens)
        found: list[Encoded] = []
        for earlier, prompt, answer in self._lay_out(marked, turns):
            prompt_ids = self._tokenize_apart(prompt, earlier, markers)
            input_ids = prompt_ids + end_in_eos(self._tokenize(answer, markers), self.eos_token_id)
            found.append(Encoded(input_ids, [(len(prompt_ids), len(input_ids))]))
        return found

    def refusal(self, record: Record) -> str | None:
        """Why the template cannot show a row; None if it can. Nothing is tokenized."""
        try:
            list(self._lay_out(record.messages, learned_turns(record.messages)))
        except UserError as error:
            return str(error)
        return None

    def _lay_out(self, messages: Sequence[Message], turns: Sequence[int]) -> Iterator[tuple[list[str], str, str]]:
        """For each of `turns`: what comes before every earlier answer, what comes before this one, and this one."""
        for name in dict.fromkeys(name for turn in messages for name in (*turn, turn["role"]) if name in MORE):
            if name not in self.shown:
                raise UserError(f"prompt {self.name!r} does not show {MORE[name]}")
        earlier: list[str] = []
        for turn in answers(messages[: max(turns) + 1]):
            prompt = self.render(messages[:turn], generation_prompt=True)
            if turn in turns:
                whole = self.render(messages[: turn + 1], generation_prompt=False)
                if not whole.startswith(prompt):
                    raise UserError(
                        f"prompt {self.name!r}: the generation prompt is not the beginning of the whole conversation "
                        f"(prompt ends in {prompt[-40:]!r}), so training and generation would differ; correct the "
                        "template"
                    )
                refuse_final_space(prompt, self.name)
                yield list(earlier), prompt, whole[len(prompt) :]
            earlier.append(prompt)

    def _tokenize_apart(self, text: str, earlier: Sequence[str], markers: "Markers | None") -> list[int]:
        """Ids of a text whose answers each begin with a new token; `earlier` is what came before each."""
        cuts = [0, *(len(before) for before in earlier if text.startswith(before)), len(text)]
        return [token for start, end in pairwise(cuts) for token in self._tokenize(text[start:end], markers)]

    def _tokenize(self, text: str, markers: "Markers | None") -> list[int]:
        pieces = [text] if markers is None else split_fenced(text, markers, self.control_tokens, self.name)
        ids: list[int] = []
        for number, piece in enumerate(pieces):
            if number % 2:  # between markers: a control token that a user typed
                ids += self._tokenize_as_text(piece)
            else:
                ids += self._ids_of(piece)
        self._check_marks(pieces[::2], ids)
        return ids

    def _check_marks(self, texts: Sequence[str], ids: Sequence[int]) -> None:
        """Raises UserError unless every control token that the template wrote is one id, and no letters are one."""
        written = [
            self.marks[mark] for text in texts for mark in self.control_tokens.findall(text) if mark in self.marks
        ]
        if written != [token for token in ids if token in self.control_ids]:
            marks = ", ".join(dict.fromkeys(map(str, self.tokenizer.convert_ids_to_tokens(written)))) or "none"
            raise UserError(
                f"prompt {self.name!r}: the control tokens that the template writes here ({marks}) are not those "
                "that the tokenizer makes of the text; a space between a mark and the text beside it may help"
            )

    def _tokenize_as_text(self, token: str) -> list[int]:
        ids = self.tokenizer.encode(token, add_special_tokens=False, split_special_tokens=True)
        if len(ids) == 1:  # an added token that is not marked special is not split by that flag
            half = len(token) // 2
            halves = (self.tokenizer.encode(part, add_special_tokens=False) for part in (token[:half], token[half:]))
            ids = [each for part in halves for each in part]
        return ids

    def contract(self, stops: Sequence[int] = ()) -> "Contract":
        """What generation must keep to; saved with every checkpoint. `stops` are what else ends an answer, from the
        model's own generation_config."""
        input_ids, [(start, _)] = self.encode(PROBE)
        return Contract(
            prompt=self.name,
            template=self.template,
            template_sha256=hashlib.sha256(self.template.encode()).hexdigest(),
            eos_token=str(self.tokenizer.eos_token),
            eos_token_id=int(self.tokenizer.eos_token_id),
            stop_token_ids=sorted({self.eos_token_id, int(self.tokenizer.eos_token_id), *stops}),
            golden_messages=[dict(message) for message in PROBE],
            golden_text=self.render(PROBE, generation_prompt=False),
            golden_prompt_ids=input_ids[:start],
            golden_response_ids=input_ids[start:],
        )


@dataclass(frozen=True, kw_only=True)
class Contract:
    """The agreement between training and every later use of a model; `prompt_contract.json` beside its weights."""

    prompt: str
    template: str
    template_sha256: str
    eos_token: str
    eos_token_id: int
    stop_token_ids: list[int]
    golden_messages: list[dict[str, Any]]
    golden_text: str
    golden_prompt_ids: list[int]
    golden_response_ids: list[int]

    def set_stops(self, generation_config: "GenerationConfig") -> None:
        """Let `model.generate`, and servers that read a model's own settings, stop where training did."""
        stops = self.stop_token_ids
        generation_config.eos_token_id = stops if len(stops) > 1 else stops[0]
        generation_config.pad_token_id = self.eos_token_id

    def save(self, folder: Path) -> None:
        write_json(folder / CONTRACT_FILE, asdict(self))


def load_prompt(name: str, tokenizer: "PreTrainedTokenizerBase") -> Prompt:
    """The template `name` (a file in prompts/, a path, or "model") prepared for `tokenizer`, its laws checked."""
    if name == "model":
        template = tokenizer.chat_template
        if not isinstance(template, str):
            raise UserError(f"prompt: model, but {tokenizer.name_or_path} does not have exactly one chat template")
    else:
        path = Path(name) if name.endswith(".jinja") else PROMPTS / f"{name}.jinja"
        if not path.is_file():
            known = ", ".join(sorted(path.stem for path in PROMPTS.glob("*.jinja")))
            raise UserError(f"prompt: {name!r} is neither one of {known}, model, nor a .jinja file")
        template = path.read_text(encoding="utf-8")
        if not puts_bos(tokenizer):
            template = template.replace(BOS_LINE, "")
    return make_prompt(name, template, tokenizer)


def puts_bos(tokenizer: "PreTrainedTokenizerBase") -> bool:
    return tokenizer.bos_token == tokenizer.eos_token or tokenizer.encode("a")[0] == tokenizer.bos_token_id


def make_prompt(name: str, template: str, tokenizer: "PreTrainedTokenizerBase") -> Prompt:
    """Check the laws on probe conversations and return the prompt.

    Raises UserError naming the law that is broken.
    """
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of {tokenizer.name_or_path} has no EOS token, so a model could not stop")
    asked, template = template, with_fixed_date(template)
    if reads_clock(template):
        raise UserError(f"prompt {name!r}: strftime_now makes prompts change by the day; write the date as text")
    refuse_bomb(tokenizer, template, PROBE, name)
    rendered = render(tokenizer, template, PROBE[:1], True, name)
    if PROBE_QUESTION not in rendered:
        raise UserError(f"prompt {name!r}: the template does not show the user's message")
    prompt = Prompt(
        name=name,
        template=template,
        tokenizer=tokenizer,
        shows_input=PROBE_INPUT in rendered,
        control_tokens=control_token_pattern(tokenizer, template),
        dated=template != asked,
    )
    for conversation in (PROBE, PLAIN_PROBE):
        if PROBE_ANSWER not in prompt.render(conversation, generation_prompt=False):
            raise UserError(f"prompt {name!r}: the template does not show the assistant's message")
        prompt.encode(conversation)
    return prompt


def answers(messages: Sequence[Message]) -> list[int]:
    """The assistant's turns."""
    return [turn for turn, message in enumerate(messages) if message["role"] == "assistant"]


def join_input(message: Message) -> Message:
    if not message.get("input"):
        return message
    joined: Message = {**message, "content": f"{message['content']}\n\n{message['input']}"}
    del joined["input"]
    return joined


def refuse_final_space(prompt: str, name: str) -> None:
    if prompt.endswith((" ", "\t")):
        raise UserError(
            f"prompt {name!r}: the prompt ends in a space ({prompt[-40:]!r}), which would merge with the answer's "
            "first token; let the template end in a newline or a control token, or trim the row"
        )


def end_in_eos(ids: list[int], eos_token_id: int) -> list[int]:
    """Cut what a template writes after the end (ChatML's newline), and append the end if it writes none."""
    if eos_token_id in ids:  # only the template can have written it: user text never becomes a control token
        return ids[: ids.index(eos_token_id) + 1]
    return [*ids, eos_token_id]


def fetch_contract(model: str, revision: str | None = None) -> Contract | None:
    """The contract saved beside a model, in a folder or on the Hub; None when the model brings none.

    Raises UserError when it is damaged, or there is no such model.
    """
    from transformers.utils.hub import cached_file

    if Path(model).expanduser().is_file():  # a .gguf brings none
        return None
    try:
        path = cached_file(model, CONTRACT_FILE, revision=revision, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        raise UserError(
            f"{model} is neither a folder here nor a model of the Hub that can be reached ({error})"
        ) from error
    if path is None:
        return None
    try:
        return Contract(**read_json(Path(path)))
    except TypeError as error:
        raise UserError(f"{path}: not a prompt contract ({error})") from error


def prompt_from_contract(contract: Contract, tokenizer: "PreTrainedTokenizerBase") -> Prompt:
    """The saved template with `tokenizer`; refused if it would not give exactly the ids of training.

    So is a tokenizer with another chat template: a server would use that one.
    """
    if tokenizer.chat_template not in (None, contract.template):
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} is not the one of its prompt contract; "
            "one of the two files was changed after training"
        )
    prompt = make_prompt(contract.prompt, contract.template, tokenizer)
    now = asdict(prompt.contract(contract.stop_token_ids))
    differ = [key for key, value in asdict(contract).items() if now[key] != value]
    if differ:
        raise UserError(
            f"the prompt contract does not fit the tokenizer of {tokenizer.name_or_path}: "
            f"{', '.join(differ)} would differ from training, so answers would not be comparable"
        )
    return prompt
