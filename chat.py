"""Talk to a model in the terminal.

    python chat.py --model runs/tiny
    python chat.py --model me/my-model --system "You answer in one word."
    echo "Which colour does grass have?" | python chat.py --model runs/tiny

While you talk:

    /system TEXT   set the system message and start over; without a text: drop it
    /reset         start over
    /base          let the base model answer too, or stop it again
    /help          this list
    /quit          or Ctrl-D; Ctrl-C ends an answer early; the arrow keys bring back what you wrote
"""

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from heed import config
from heed.commands import run_script
from heed.config import ChatConfig
from heed.errors import UserError

if TYPE_CHECKING:  # heavy: imported below, once the command line is known to be good
    from heed.prompts.template import Prompt

COMMANDS = (__doc__ or "").partition("While you talk:\n\n")[2].rstrip()
PROMPT = "> "


def main(arguments: Sequence[str]) -> None:
    loaded = config.load(ChatConfig, arguments, doc=__doc__)
    if loaded is None:
        return
    ours = loaded.config
    if ours.max_new_tokens < 1:
        raise UserError(f"max_new_tokens: {ours.max_new_tokens} leaves no room for an answer; give 1 or more")
    be_quiet()

    from heed.answers.subjects import check_model

    check_model(ours.model, ours.model_revision)
    talk(Speakers(ours), ours)


def be_quiet() -> None:
    """The libraries' progress bars and messages would come between the lines of a conversation."""
    import huggingface_hub
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    huggingface_hub.logging.set_verbosity_error()


class Speakers:
    """The model that is talked to, and the one it started from once that is asked for."""

    def __init__(self, ours: ChatConfig) -> None:
        from heed.answers.subjects import find_prompt, load_subject
        from heed.runs.finished import Subject, find_run, weight_bits
        from heed.workers import what_is_here_stays

        self.ours, self.run = ours, find_run(ours.model)
        self.subject = Subject(name="tuned", model=ours.model, revision=ours.model_revision)
        self.prompt, self.contract = find_prompt(ours.model, ours.model_revision, ours.prompt)
        bits = weight_bits(self.run, ours.load_in_4bit, ours.load_in_8bit)
        self.options: dict[str, Any] = {"dtype": ours.dtype, "bits": bits}
        self.model = load_subject(self.subject, **self.options)
        what_is_here_stays()
        self.base: tuple[Any, Prompt, list[int]] | None = None
        self.with_base = False

    def toggle_base(self) -> str:
        """Ask the base model from now on, or stop asking it; says which."""
        from heed.answers.subjects import base_of, load_subject, shared_prompt
        from heed.runs.finished import Subject

        if self.base is None:
            named = self.ours.base
            base = Subject(name="base", model=named) if named is not None else base_of(self.subject, self.run)
            prompt, stops = shared_prompt(self.prompt, self.contract, base)
            self.base = (load_subject(base, **self.options), prompt, stops)
            self.base_name = base.model
        self.with_base = not self.with_base
        return f"{self.base_name} answers {'too, to the same conversation' if self.with_base else 'no longer'}"

    def asked(self) -> "Iterator[tuple[str, Any, Prompt, list[int]]]":
        """Name, model, prompt and stop tokens of each that answers; the tuned one last."""
        if self.with_base and self.base is not None:
            yield ("base: ", *self.base)
        name = "tuned: " if self.with_base else ""
        yield name, self.model, self.prompt, self.contract.stop_token_ids


def talk(speakers: Speakers, ours: ChatConfig) -> None:
    """Read lines until there are no more. What goes wrong with one is reported, and the next is read."""
    from heed.answers.conversation import Conversation
    from heed.answers.streaming import NoRoom, stream_answer

    conversation = Conversation(ours.system)
    terminal = sys.stdin.isatty()
    if terminal:
        print(f"{ours.model}, prompt {speakers.prompt.name}; /help lists the commands")
    for line in lines(terminal):
        word, _, rest = line.strip().partition(" ")
        if word == "/quit":
            return
        try:
            if word.startswith("/"):
                print(obey(word, rest.strip(), conversation, speakers))
                continue
            if not word:
                continue
            question, answer = line.strip(), ""
            for name, model, prompt, stops in speakers.asked():
                print(name, end="", flush=True)
                answer = stream_answer(
                    model,
                    prompt,
                    conversation.asked(question),
                    stop_token_ids=stops,
                    max_new_tokens=ours.max_new_tokens,
                    write=lambda piece: print(piece, end="", flush=True),
                ).text
                print()
            conversation.add(question, answer)
        except UserError as error:
            print(f"error: {error}{'; /reset starts over' if isinstance(error, NoRoom) else ''}", file=sys.stderr)


def obey(word: str, rest: str, conversation: Any, speakers: Speakers) -> str:
    """Do what a line with a slash asks for; the answer to it."""
    match word:
        case "/system":
            conversation.begin(rest or None)
            return (
                f"starting over with the system message: {rest}" if rest else "starting over without a system message"
            )
        case "/reset":
            conversation.begin(conversation.system)
            return "starting over"
        case "/base":
            return speakers.toggle_base()
        case "/help":
            return COMMANDS
    raise UserError(f"{word} is not a command; /help lists them")


def lines(terminal: bool) -> Iterator[str]:
    """What is typed, with a history on the arrow keys; or what is piped in."""
    if not terminal:
        yield from sys.stdin
        return
    import readline  # noqa: F401  # input() uses it once it is imported

    while True:
        try:
            yield input(PROMPT)
        except EOFError:
            print()
            return
        except KeyboardInterrupt:  # the line is dropped, as in a shell
            print()


if __name__ == "__main__":
    run_script(main)
