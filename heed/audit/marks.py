"""Words and marks of prompt templates that occur in a row's own text, and texts that say nothing."""

import re
from functools import lru_cache

from heed.prompts.probes import PROBE, PROBE_ANSWER, PROBE_INPUT, PROBE_QUESTION
from heed.prompts.template import Prompt

LONG_ENOUGH = 24  # letters of a template's sentence that nobody else writes by chance
# Marks of chat formats that mean nothing here, or of another template.
FOREIGN_MARKS = "|".join(
    (
        r"### ?(?:Instruction|Input|Response|Human|Assistant):",
        r"<\|[a-z_]{2,24}\|>",
        r"\[/?INST\]|<</?SYS>>",
        r"<(?:start|end)_of_turn>",
    )
)
PLACEHOLDERS = frozenset(
    "nan <nan> none null n/a na <na> <noinput> noinput undefined todo tbd ... …".split()  # noqa: SIM905
)


@lru_cache(maxsize=8)
def marks_of(prompt: Prompt) -> re.Pattern[str]:
    """Matches what the template itself writes, and marks of other templates, in a row's own words."""
    lines = prompt.render(PROBE, generation_prompt=False).splitlines()
    words = (PROBE_QUESTION, PROBE_INPUT, PROBE_ANSWER)
    written = {line.replace(str(prompt.tokenizer.eos_token), "").strip() for line in lines}
    sentences = [sentence for line in written for sentence in re.split(r"(?<=\.) ", line)]
    own = [each for each in sentences if len(each) >= LONG_ENOUGH and not any(word in each for word in words)]
    headings = [found for line in written for found in re.findall(r"^(###[^:]*:|<\|[^|]+\|>)", line)]
    return re.compile("|".join([*map(re.escape, sorted({*own, *headings})), FOREIGN_MARKS]))
