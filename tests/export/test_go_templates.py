"""The Go templates that Ollama gets, rendered by Go itself: the bytes of the prompts that training saw."""

import json
import os
import shutil
import subprocess
from itertools import product
from pathlib import Path

import pytest
from tokenizers.processors import TemplateProcessing

from heed.data.records import Message
from heed.export.convert import INSTALLED
from heed.export.modelfile import TRIMS, go_template
from heed.export.proof import as_messages
from heed.prompts.probes import PLAIN_PROBE, PROBE, PROBE_QUESTION
from heed.prompts.template import PROMPTS, Prompt, load_prompt
from world.small_world import tiny_tokenizer

GO = shutil.which("go") or str(INSTALLED.parent / "go" / "go" / "bin" / "go")
SYSTEM: Message = {"role": "system", "content": "Be brief.\n"}
ASKED: dict[str, list[Message]] = {
    "without input": [PLAIN_PROBE[0]],
    "with input": [PROBE[0]],
    "with system": [SYSTEM, PLAIN_PROBE[0]],
    "two turns": [*PLAIN_PROBE, {"role": "user", "content": PROBE_QUESTION}],
    "two turns, system and input": [SYSTEM, *PROBE, PROBE[0]],
    "what a template could trip over": [{"role": "user", "content": '{{ .Role }} "quoted" `a` \\n <b> & é\n\n'}],
}


OWN = {  # as chat models bring them: a system message where none is given; another end for the last turn
    "like SmolLM2": (
        "{% for message in messages %}{% if loop.first and message.role != 'system' %}<|im_start|>system\nYou help."
        "<|im_end|>\n{% endif %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "like OLMo 2": (
        "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}"
        "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}"
        "{% if not loop.last or message.role != 'assistant' %}{{ '\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    ),
}


def prompts() -> list[Prompt]:
    """Each with a tokenizer that puts no BOS, and with one that does."""
    found = []
    for name in (*sorted(path.stem for path in PROMPTS.glob("*.jinja")), *OWN):
        other = tiny_tokenizer()
        other.add_special_tokens({"bos_token": "<s>"})
        begun = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", other.bos_token_id)])
        other.backend_tokenizer.post_processor = begun
        for tokenizer in (tiny_tokenizer(), other):
            tokenizer.chat_template = OWN.get(name)
            found.append(load_prompt("model" if name in OWN else name, tokenizer))
    return found


def test_every_prompt_has_a_go_template_and_one_is_inexact_about_spaces_at_the_ends() -> None:
    assert {prompt.name for prompt in prompts() if TRIMS in str(go_template(prompt) or TRIMS)} == {"question"}


@pytest.mark.slow
@pytest.mark.skipif(not Path(GO).is_file(), reason="`make test-slow` installs Go")
def test_go_writes_what_jinja_writes(tmp_path: Path) -> None:
    cases, wanted, told = [], [], []
    for prompt, (name, conversation) in product(prompts(), ASKED.items()):
        messages = as_messages(conversation, prompt)
        if messages is None:
            told.append((prompt.name, name))
            continue
        template = go_template(prompt)
        named = [{"Role": message["role"], "Content": message["content"]} for message in messages]
        cases.append({"Template": template, "Messages": named})
        wanted.append(prompt.render(conversation, generation_prompt=True).removeprefix("<s>"))  # llama.cpp puts it
    environment = os.environ | {"GOCACHE": str(tmp_path / "cache"), "GOTOOLCHAIN": "local", "GO111MODULE": "off"}
    program = [GO, "run", str(Path(__file__).parent / "render.go")]
    done = subprocess.run(program, env=environment, input=json.dumps(cases), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == wanted
    assert set(told) == {("alpaca", "with input")}  # no chat message can say it: the preamble depends on the input
