"""A conversation with a model: what was said so far."""

from heed.data.records import Message


class Conversation:
    """Turns of user and assistant, with a system message in front if there is one."""

    def __init__(self, system: str | None = None) -> None:
        self.begin(system)

    def begin(self, system: str | None) -> None:
        self.system = system
        self.turns: list[Message] = []

    def asked(self, question: str) -> list[Message]:
        """What a model reads: all that was said, and the question."""
        system: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *self.turns, {"role": "user", "content": question}]

    def add(self, question: str, answer: str) -> None:
        self.turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
