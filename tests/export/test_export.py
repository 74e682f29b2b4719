"""`python -m heed.export`: refusals, the Modelfile, and what a folder says that was not proved."""

from pathlib import Path

import pytest

from heed.errors import UserError
from heed.export import __main__ as command
from heed.export import convert, llama_cpp, proof, readme
from heed.export.modelfile import modelfile
from heed.export.proof import Proof, Row
from heed.prompts.template import load_prompt
from world.small_world import tiny_tokenizer


@pytest.fixture
def trained(model_folder: Path) -> Path:
    """A model with a contract, as a run leaves it."""
    load_prompt("alpaca_short", tiny_tokenizer()).contract().save(model_folder)
    return model_folder


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A converter that writes five bytes."""
    monkeypatch.setattr(convert, "is_installed", lambda: True)
    monkeypatch.setattr(command, "convert", lambda model, file, *, type, name: file.write_bytes(b"GGUF."))


def row(ours: list[int], theirs: list[int], *, same_prompt: bool = True) -> Row:
    return Row(
        place="rows.json:3",
        by_message=True,
        same_prompt=same_prompt,
        ours=ours,
        theirs=theirs,
        preference=0.25 if len(ours) == len(theirs) else None,
    )


def found(*rows: Row) -> Proof:
    return Proof(rows=rows, too_long=0, max_new_tokens=64, runtime="b1")


def test_what_cannot_be_exported_is_refused_with_a_way_out(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "INSTALLED", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"--type: q4_k_m is not one of f16, q8_0, f32, bf16.*llama-quantize"):
        command.export(str(trained), tmp_path / "out", type="q4_k_m")
    with pytest.raises(UserError, match="install it with `make export-setup`"):
        command.export(str(trained), tmp_path / "out", type="f16")
    monkeypatch.setattr(convert, "is_installed", lambda: True)
    with pytest.raises(UserError, match="random-gpt2 is not empty"):
        command.export(str(trained), trained, type="f16")
    (trained / "prompt_contract.json").unlink()
    with pytest.raises(UserError, match="is not a folder with a model that Heed has trained"):
        command.export(str(trained), tmp_path / "out", type="f16")
    assert not (tmp_path / "out").exists()


def test_a_converter_that_fails_is_quoted_and_nothing_is_left(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "convert_hf_to_gguf.py").write_text("")
    monkeypatch.setattr(convert, "INSTALLED", tmp_path)  # the program finds no gguf package there
    with pytest.raises(UserError, match="does not take this model: ModuleNotFoundError: No module named"):
        command.export(str(trained), tmp_path / "out", type="f16")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.usefixtures("written")
def test_without_a_runtime_or_rows_the_folder_says_not_proved(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_cpp, "command", lambda: None)
    told = command.export(str(trained), tmp_path / "out", type="f16")
    assert told == "NOT PROVED: no llama-server is on the PATH, and `make export-setup` brought none."
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["Modelfile", "README.md", "random-gpt2-f16.not-proved.gguf"]
    assert "FROM ./random-gpt2-f16.not-proved.gguf\n" in (tmp_path / "out" / "Modelfile").read_text()
    assert told in (tmp_path / "out" / "README.md").read_text()

    monkeypatch.setattr(llama_cpp, "command", lambda: ["llama-server"])
    told = command.export(str(trained), tmp_path / "again", type="f16")
    assert "is not in a run folder, so it is not known which rows it has not learned" in told


@pytest.mark.usefixtures("written")
def test_a_proof_that_fails_is_an_error_and_the_file_is_called_so(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "prepared", lambda run: (["llama-server"], []))
    rows = [row([5, 0], [5, 0])] * 18 + [row([266, 0], [266, 1]), row([5, 0], [5], same_prompt=False)]
    monkeypatch.setattr(proof, "prove", lambda *words: found(*rows))
    with pytest.raises(UserError, match=r"FAILED: llama\.cpp answers 18 of 20 held-out rows.*README\.md says where"):
        command.export(str(trained), tmp_path / "out", type="f16")
    text = (tmp_path / "out" / "README.md").read_text()
    assert (
        "- rows.json:3: token 2 of the answer (`<|endoftext|>` here, `!` there, 0.250 nats apart to the run)\n" in text
    )
    assert (
        "- rows.json:3: the prompt's tokens and token 2 of the answer (`<|endoftext|>` here, `nothing` there)" in text
    )
    assert (tmp_path / "out" / "random-gpt2-f16.not-proved.gguf").is_file()


def test_a_type_that_rounds_is_held_to_its_prompts_only() -> None:
    rounded = found(*[row([5, 0], [6, 0])] * 20)
    assert not rounded.holds("f16") and rounded.holds("q8_0")
    assert readme.verdict(rounded, "q8_0").startswith("Tried: llama.cpp answers 0 of 20 held-out rows")
    assert not found(*[row([5, 0], [5, 0], same_prompt=False)] * 20).holds("q8_0")
    assert readme.verdict(found(*[row([5, 0], [5, 0])] * 20), "f16").startswith("Proved: llama.cpp answers 20 of 20")


def test_ollama_gets_the_template_the_stops_and_greedy_parameters() -> None:
    prompt = load_prompt("chatml", tiny_tokenizer())
    assert modelfile("a.gguf", prompt, prompt.contract()) == (
        "FROM ./a.gguf\n"
        'TEMPLATE """{{- range $place, $message := .Messages }}\n'
        '{{- if eq .Role "system" }}{{ "<|im_start|>system\\n" }}{{ .Content }}{{ "<|im_end|>\\n" }}\n'
        '{{- else if eq .Role "assistant" }}{{ "<|im_start|>assistant\\n" }}{{ .Content }}{{ "<|endoftext|>\\n" }}\n'
        '{{- else }}{{ if eq $place 0 }}{{ "<|im_start|>user\\n" }}{{ else }}{{ "<|im_start|>user\\n" }}{{ end }}'
        '{{ .Content }}{{ "<|im_end|>\\n" }}\n'
        "{{- end }}\n"
        "{{- end }}\n"
        '{{- "<|im_start|>assistant\\n" }}"""\n'
        "PARAMETER temperature 0\n"
        "PARAMETER top_k 1\n"
        "PARAMETER repeat_penalty 1\n"
        'PARAMETER stop "<|endoftext|>"\n'
    )


@pytest.mark.parametrize(
    "turn",
    [
        "{{ message.content.split('</think>')[-1] }}\n",
        "{% if message.content %}{{ message.content }}\n{% endif %}",
        "{% if message.role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ message.content }}\n",
        "{% if loop.index < 4 %}{{ message.content }}\n{% endif %}",
        "{{ message.content + message.content }}\n",
    ],
)
def test_a_template_that_does_more_than_write_around_the_texts_gets_no_modelfile(turn: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}" + turn + "{% endfor %}"
    prompt = load_prompt("model", tokenizer)
    assert modelfile("a.gguf", prompt, prompt.contract()) is None
