"""Texts are rendered past transformers, and look as transformers renders them."""

import pytest
from transformers import PreTrainedTokenizerBase

from heed.data.records import Message
from heed.errors import UserError
from heed.prompts.rendering import render
from heed.prompts.template import PROMPTS, join_input, load_prompt, make_prompt

CHAT: list[Message] = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "Add {{ 1 }}\n", "input": "<b>1</b> & 2"},
    {"role": "assistant", "content": "3"},
    {"role": "user", "content": "And ünder?", "input": ""},
    {"role": "assistant", "content": " 4\n"},
]


@pytest.mark.parametrize("style", sorted(path.stem for path in PROMPTS.glob("*.jinja")))
def test_a_conversation_is_rendered_as_transformers_does(tokenizer: PreTrainedTokenizerBase, style: str) -> None:
    prompt = load_prompt(style, tokenizer)
    for start, end in ((0, 5), (1, 5), (1, 3), (0, 2), (1, 4)):
        for generation_prompt in (True, False):
            turns = CHAT[start:end]
            if not prompt.shows_input:
                turns = [join_input(turn) for turn in turns]
            expected = render(tokenizer, prompt.template, turns, generation_prompt, style)
            assert prompt.render(tuple(turns), generation_prompt=generation_prompt) == expected


def test_a_template_may_still_refuse_a_conversation(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = make_prompt(
        "own",
        "{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no system here') }}"
        "{% endif %}{{ message.content }}{{ eos_token if message.role == 'assistant' else '\\n' }}{% endfor %}",
        tokenizer,
    )
    with pytest.raises(UserError, match="prompt 'own': cannot render a conversation of system, user: no system here"):
        prompt.render(CHAT[:2], generation_prompt=True)
