"""HELM, really run in its own environment, on rows and a model of ours."""

import json
from pathlib import Path

import pytest

from heed.answers.generation import generate
from heed.benchmarks import helm, readiness
from heed.benchmarks.asking import Asking
from heed.benchmarks.loaded import Loaded, whole_model
from heed.benchmarks.measuring import outcome_of
from heed.benchmarks.suite import BENCHMARKS
from heed.errors import UserError
from heed.models.adapters import Adapter, add_adapter
from heed.models.loading import load_tokenizer
from heed.prompts.template import Prompt, load_prompt
from heed.runs.finished import Subject
from world.small_world import gpt2, records, save_model


@pytest.fixture
def asked(tmp_path: Path) -> tuple[Path, Prompt]:
    folder = save_model(tmp_path / "model", gpt2())
    return folder, load_prompt("alpaca_short", load_tokenizer(str(folder)))


def test_prompts_are_the_contracts_to_the_token(asked: tuple[Path, Prompt]) -> None:
    _, prompt = asked
    [record] = records(("Say a.", "a!"))
    [row] = helm.rendered_rows([record], prompt)
    assert row["prompt"].endswith("### Instruction:\nSay a.\n\n### Response:\n") and row["reference"] == "a!"
    assert prompt.tokenizer(row["prompt"])["input_ids"] == prompt.encode_prompt(record.messages[:-1])
    with pytest.raises(UserError, match=r"rows\.json:1 quotes a control token"):
        helm.rendered_rows(records(("What is <|endoftext|>?", "A mark.")), prompt)


def test_an_adapter_is_merged_for_an_environment_without_peft(asked: tuple[Path, Prompt]) -> None:
    folder, prompt = asked
    with whole_model(gpt2(), prompt, str(folder)) as path:
        assert path == str(folder)
    adapted = add_adapter(gpt2(), Adapter(rank=2, alpha=4, dropout=0.0, target_modules=None))
    with whole_model(adapted, prompt, "runs/adapter") as path:
        names = {each.name for each in Path(path).iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names and "adapter_config.json" not in names
    with whole_model(gpt2(), prompt, "me/model", revision="v1") as path:  # HELM itself would load the newest
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= {each.name for each in Path(path).iterdir()}


@pytest.mark.slow
@pytest.mark.skipif(not (readiness.HELM / "bin" / "helm-run").is_file(), reason="make helm-setup installs HELM")
def test_helm_scores_our_rows_with_our_models_own_answers(asked: tuple[Path, Prompt], tmp_path: Path) -> None:
    folder, prompt = asked
    rows = records(*((f"Say {word}.", "") for word in "abcd"))
    answers = generate(
        gpt2(),
        prompt,
        [prompt.encode_prompt(row.messages[:-1]) for row in rows],
        stop_token_ids=[prompt.eos_token_id],
        batch_size=1,
        max_new_tokens=5,
    )
    # The references of the first three are what the model says; the last one's is not.
    references = [each.text for each in answers[:3]] + ["something else"]
    pairs = [(f"Say {word}.", reference) for word, reference in zip("abcd", references, strict=True)]
    asking = Asking(
        folder=tmp_path,
        prompt=prompt,
        contract=prompt.contract(),
        dtype="float32",
        bits=None,
        batch_size=1,
        limit=4,
        command="test",
        say=lambda text: None,
    )
    outcomes = {}
    with Loaded(asking, Subject(name="tuned", model=str(folder))) as loaded:
        for entry in ("heed_test", "simple_mcqa"):
            question = helm.question(asking, BENCHMARKS["helm"], entry, records(*pairs), max_new_tokens=5)
            outcomes[entry] = outcome_of(loaded, question)
    out = tmp_path / "benchmarks" / "tuned" / "helm"
    exact = next(score for score in outcomes["heed_test"].scores if score.metric == "exact_match")
    assert (exact.value, exact.n, exact.n_full, sorted(exact.pooled)) == (0.75, 4, 4, [0.0, 1.0, 1.0, 1.0])
    assert outcomes["simple_mcqa"].scores[0].n == 4
    [state] = out.glob("runs/heed/simple_mcqa*/scenario_state.json")
    adapter = json.loads(state.read_text())["adapter_spec"]
    assert adapter["model_deployment"] == "heed/tuned-chat"  # HELM's own prompts get the template
    assert (out / "tokenizer" / "chat_template.jinja").read_text() == prompt.template
