"""Heed's plug-in for HELM: a scenario of the run's own rows, and the models. Imported by HELM, in its environment.

The environment variable HEED_HELM names a file that heed.benchmarks.helm has written.
"""

import json
import os
from pathlib import Path
from typing import Any

from helm.benchmark.adaptation.adapter_spec import ADAPT_GENERATION, AdapterSpec
from helm.benchmark.metrics.common_metric_specs import get_basic_metric_specs
from helm.benchmark.model_deployment_registry import ClientSpec, ModelDeployment, register_model_deployment
from helm.benchmark.model_metadata_registry import get_unknown_model_metadata, register_model_metadata
from helm.benchmark.run_spec import RunSpec, run_spec_function
from helm.benchmark.scenarios.scenario import (
    CORRECT_TAG,
    TEST_SPLIT,
    Input,
    Instance,
    Output,
    Reference,
    Scenario,
    ScenarioSpec,
)
from helm.benchmark.tokenizer_config_registry import TokenizerConfig, TokenizerSpec, register_tokenizer_config

TOLD: dict[str, Any] = json.loads(Path(os.environ["HEED_HELM"]).read_text(encoding="utf-8"))


class HeedTestScenario(Scenario):
    """Rows of a run's test split. The input is the whole prompt, rendered by the model's contract."""

    name = "heed_test"
    description = "The rows that a run of Heed has set aside"
    tags = ["instruction following"]  # noqa: RUF012  # HELM's own annotation

    def get_instances(self, output_path: str) -> list[Instance]:
        return [
            Instance(
                input=Input(text=row["prompt"]),
                references=[Reference(Output(text=row["reference"]), tags=[CORRECT_TAG])],
                split=TEST_SPLIT,
                id=f"row{row['row_id']}",
            )
            for row in TOLD["rows"]
        ]


@run_spec_function("heed_test")
def get_heed_test_run_spec() -> RunSpec:
    """Nothing is added to the prompt: it is asked as it was rendered."""
    return RunSpec(
        name="heed_test",
        scenario_spec=ScenarioSpec(class_name="heed.benchmarks.helm_plugin.HeedTestScenario"),
        adapter_spec=AdapterSpec(
            method=ADAPT_GENERATION,
            global_prefix="",
            instructions="",
            input_prefix="",
            input_suffix="",
            output_prefix="",
            output_suffix="",
            instance_prefix="",
            max_train_instances=0,
            num_outputs=1,
            max_tokens=TOLD["max_new_tokens"],
            temperature=0.0,
            stop_sequences=[],
        ),
        metric_specs=get_basic_metric_specs(["exact_match", "quasi_exact_match", "prefix_exact_match", "f1_score"]),
        groups=["heed_test"],
    )


def register(name: str, model: dict[str, Any], *, chat_template: bool) -> None:
    """A model under two names: for prompts that are rendered already, and for HELM's own, which get the template."""
    weights = {"pretrained_model_name_or_path": model["path"], "apply_chat_template": chat_template}
    words = {"pretrained_model_name_or_path": model["tokenizer"]}
    client = "helm.clients.huggingface_client.HuggingFaceClient"
    tokenizer = "helm.tokenizers.huggingface_tokenizer.HuggingFaceTokenizer"
    register_model_metadata(get_unknown_model_metadata(name))
    register_model_deployment(
        ModelDeployment(
            name=name,
            model_name=name,
            tokenizer_name=name,
            # HELM cuts its prompts to this before the client puts the template around them.
            max_sequence_length=model["positions"] - (model["template_tokens"] if chat_template else 0),
            client_spec=ClientSpec(class_name=client, args=weights),
        )
    )
    register_tokenizer_config(
        TokenizerConfig(
            name=name,
            tokenizer_spec=TokenizerSpec(class_name=tokenizer, args=words),
            end_of_text_token=model["eos_token"],
            prefix_token=model["bos_token"],
        )
    )


for each, told in TOLD["models"].items():
    register(f"heed/{each}", told, chat_template=False)
    register(f"heed/{each}-chat", told, chat_template=True)
