"""Models of lm_eval that know every answer, or no answer: the first must score 1, the second 0."""

from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

# IFEval's test rows ask for lower case; BBH's worked examples end so.
RIGHT_IFEVAL, WRONG_IFEVAL = "all of it is in lower case.", "THIS SHOUTS."


class Oracle(LM):
    """Answers from the document, as a person would who reads the data set's description and never the task's code."""

    def __init__(self, *, right: bool) -> None:
        super().__init__()
        self.right = right

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        chosen = [is_right(request) == self.right for request in requests]
        return [(0.0 if each else -50.0, each) for each in chosen]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        raise AssertionError("no benchmark asks for it")

    def generate_until(self, requests: list[Instance]) -> list[str]:
        return [right_answer(request) if self.right else wrong_answer(request) for request in requests]

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return "\n".join(turn["content"] for turn in chat_history)

    @property
    def tokenizer_name(self) -> str:
        return "oracle"


def is_right(request: Instance) -> bool:
    """Whether the continuation is what the document says is true. Words decide, not positions, wherever it can be."""
    doc: dict[str, Any] = request.doc
    continuation = request.args[1]
    match request.task_name:
        case "squadv2":  # the only continuation asked for: unanswerable
            return not doc["answers"]["text"]
        case "multirc":
            return continuation.rstrip().endswith("yes") == bool(doc["label"])
        case "record":
            return any(answer in continuation for answer in doc["answers"])
        case "boolq":
            return continuation.strip() == ("yes" if doc["label"] else "no")
        case _ if "multiple_choice_targets" in doc:
            return continuation.strip() in doc["targets"]
        case _ if "choices" in doc:
            return continuation.strip() == "ABCD"[doc["answer"]]
    return request.idx == doc["label"]


def right_answer(request: Instance) -> str:
    doc: dict[str, Any] = request.doc
    name = str(request.task_name)
    match name.split("_")[0]:
        case "triviaqa":
            return " " + doc["answer"]["aliases"][0]
        case "squadv2":
            return doc["answers"]["text"][0] if doc["answers"]["text"] else ""
        case "bigbench":
            return doc["targets"][0]
        case "bbh":
            return f"So the answer is {doc['target']}."
        case "humaneval":
            return doc["canonical_solution"]
        case "ifeval":
            return RIGHT_IFEVAL
    raise AssertionError(name)


def wrong_answer(request: Instance) -> str:
    match str(request.task_name).split("_")[0]:
        case "ifeval":
            return WRONG_IFEVAL
        case "humaneval":
            return "    return None\n"
        case "squadv2":  # where there is no answer, any answer is wrong
            return "nobody knows"
    return "nonsense"
