import dataclasses
import re
import time
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from heed import config
from heed.benchmarks.suite import find_benchmarks
from heed.config import (
    ArenaConfig,
    BenchmarkConfig,
    ChatConfig,
    EvalConfig,
    InspectConfig,
    RateConfig,
    SftConfig,
    elsewhere,
    reader,
    training_arguments,
)
from heed.config.sft import BEGINNERS, GROUPS
from heed.errors import UserError
from heed.evaluation.judged import judge_settings
from heed.judge.settings import JudgeSettings
from heed.preferences import run as preferences
from heed.training.arguments import read_config
from world.small_world import ROOT

KEYS = config.field_types(SftConfig) | config.field_types(TrainingArguments)
NEEDED = "model_name_or_path: m\ndata: d.json\noutput_dir: out\n"


def settings(tmp_path: Path, text: str, *arguments: str) -> config.Settings:
    path = tmp_path / "run.yaml"
    path.write_text(NEEDED + text)
    line = config.parse_command_line(["--config", str(path), *arguments], flags=("dry_run", "explain"))
    return config.read_settings(line, KEYS)


def training(tmp_path: Path, text: str, *arguments: str) -> config.Settings:
    return config.training_settings(settings(tmp_path, text, *arguments), config.field_types(TrainingArguments))


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("learning_rate: 2e-5", "learning_rate", 2e-5),
        ("learning_rate: 5.0e-4", "learning_rate", 5e-4),
        ("max_steps: 1e3", "max_steps", 1000),
        ("eval_strategy: no", "eval_strategy", "no"),
        ("bf16: yes", "bf16", True),
        ("report_to: none", "report_to", "none"),
        ("report_to: [tensorboard, wandb]", "report_to", ["tensorboard", "wandb"]),
        ("early_stopping_patience: null", "early_stopping_patience", None),
        ("split_shares: [0.9, 0.05, 0.05]", "split_shares", [0.9, 0.05, 0.05]),
        ("columns: {instruction: task}", "columns", {"instruction": "task"}),
        ("lr_scheduler_type: cosine", "lr_scheduler_type", "cosine"),
        ("lr_scheduler_kwargs: {num_cycles: 2}", "lr_scheduler_kwargs", {"num_cycles": 2}),
        ("run_name: 007", "run_name", "007"),
        ("lr_scheduler_kwargs: {min_lr: 1e-6}", "lr_scheduler_kwargs", {"min_lr": 1e-6}),
        ("lr_scheduler_kwargs: {a: 1e6, b: .5, c: 1_000}", "lr_scheduler_kwargs", {"a": 1e6, "b": 0.5, "c": "1_000"}),
        ("lr_scheduler_kwargs: {a: no, b: true, c: '1'}", "lr_scheduler_kwargs", {"a": "no", "b": True, "c": "1"}),
        ("lr_scheduler_kwargs: {a: [1, 2e-3], b: {c: -1.}}", "lr_scheduler_kwargs", {"a": [1, 2e-3], "b": {"c": -1.0}}),
        ("learning_rate: .5", "learning_rate", 0.5),
        ("max_steps: 1e6", "max_steps", 1_000_000),
    ],
)
def test_a_value_has_the_type_of_its_key(tmp_path: Path, text: str, key: str, value: Any) -> None:
    found = settings(tmp_path, text)[key].value
    assert found == value and type(found) is type(value)


def test_the_command_line_wins_and_sources_are_known(tmp_path: Path) -> None:
    found = settings(tmp_path, "seed: 1\nbf16: true", "--seed", "2", "--learning-rate=3e-4", "--fp16")
    assert (found["seed"].value, found["seed"].source) == (2, "command line")
    assert (found["learning_rate"].value, found["fp16"].value) == (3e-4, True)
    assert found["bf16"].source == f"{tmp_path}/run.yaml:5"


def test_numbers_inside_a_value_are_read_alike_on_the_command_line_and_in_a_file(tmp_path: Path) -> None:
    found = settings(tmp_path, "", "--lr_scheduler_kwargs", '{"min_lr": 1e-6, "name": "1e-6"}')
    assert found["lr_scheduler_kwargs"].value == {"min_lr": 1e-6, "name": "1e-6"}


def test_of_two_files_the_later_one_wins_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "over.yaml").write_text("# faster\nlearning_rate: 3e-4\n")
    found = settings(tmp_path, "learning_rate: 1e-4\nseed: 3", "--config", str(tmp_path / "over.yaml"))
    assert (found["learning_rate"].value, found["learning_rate"].source) == (3e-4, f"{tmp_path}/over.yaml:2")
    assert (found["seed"].value, found["seed"].source) == (3, f"{tmp_path}/run.yaml:5")


def test_a_tilde_is_the_home_folder_in_paths_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    found = settings(tmp_path, "audit_against: [~/a.json, b.json]\nrun_name: ~/x", "--prepared", "~/set")
    assert found["audit_against"].value == ["/home/me/a.json", "b.json"]
    assert (found["prepared"].value, found["run_name"].value) == ("/home/me/set", "~/x")
    data = settings(tmp_path, "", "--data", "{train: ~/t.json}")["data"].value
    assert data == {"train": "/home/me/t.json"}


def test_help_for_a_name_from_elsewhere_says_what_it_is_here() -> None:
    assert config.help_text(SftConfig, "Doc.", word="packing").endswith(
        "examples end to end without padding, and keeps them apart"
    )


def test_every_name_from_elsewhere_is_answered_by_a_key_that_exists() -> None:
    assert {re.split(r"\W", said)[0] for said in elsewhere.RENAMED.values()} <= set(KEYS)
    taken = (set(elsewhere.RENAMED) | set(elsewhere.ABSENT)) & set(config.field_types(SftConfig))
    assert not taken, "these are keys here"


TRL = """model_init_kwargs router_aux_loss_coef chat_template_path dataset_text_field dataset_kwargs dataset_num_proc
eos_token pad_token max_length truncation_mode shuffle_dataset packing packing_strategy padding_free
pad_to_multiple_of eval_packing completion_only_loss assistant_only_loss loss_type activation_offloading dtype
trust_remote_code attn_implementation use_peft lora_r lora_alpha lora_dropout lora_target_modules
lora_target_parameters lora_modules_to_save load_in_8bit load_in_4bit bnb_4bit_quant_type use_bnb_nested_quant
bnb_4bit_quant_storage"""
AXOLOTL = """base_model tokenizer_config model_type tokenizer_type load_in_8bit load_in_4bit datasets test_datasets
dataset_prepared_path val_set_size chat_template adapter lora_model_dir sequence_len sample_packing
eval_sample_packing pad_to_sequence_len lora_r lora_alpha lora_dropout lora_target_modules lora_target_linear
lora_modules_to_save wandb_project wandb_entity wandb_watch wandb_name gradient_accumulation_steps
micro_batch_size eval_batch_size num_epochs optimizer lr_scheduler learning_rate cosine_min_lr_ratio
train_on_inputs group_by_length bf16 fp16 tf32 gradient_checkpointing gradient_checkpointing_kwargs
early_stopping_patience resume_from_checkpoint auto_resume_from_checkpoints logging_steps xformers_attention
flash_attention sdp_attention warmup_steps warmup_ratio evals_per_epoch eval_steps saves_per_epoch save_steps
save_total_limit weight_decay fsdp deepspeed special_tokens tokens roles_to_train train_on_eos
neftune_noise_alpha max_grad_norm seed output_dir hub_model_id plugins rl"""
LLAMA_FACTORY = """model_name_or_path adapter_name_or_path stage do_train finetuning_type lora_rank lora_alpha
lora_dropout lora_target additional_target quantization_bit quantization_method double_quantization
dataset dataset_dir template cutoff_len max_samples overwrite_cache preprocessing_num_workers
train_on_prompt mask_history streaming mix_strategy interleave_probs val_size packing neat_packing
output_dir logging_steps save_steps plot_loss overwrite_output_dir save_only_model report_to
per_device_train_batch_size gradient_accumulation_steps learning_rate num_train_epochs
lr_scheduler_type warmup_ratio bf16 ddp_timeout resume_from_checkpoint flash_attn
enable_liger_kernel use_unsloth use_unsloth_gc disable_gradient_checkpointing shift_attn
rope_scaling export_dir freeze_trainable_layers default_system enable_thinking do_sample temperature
top_p max_new_tokens pure_bf16 eval_on_each_dataset eval_dataset"""


@pytest.mark.parametrize("names", [TRL, AXOLOTL, LLAMA_FACTORY], ids=["TRL", "axolotl", "LLaMA-Factory"])
def test_every_key_of_other_tools_is_one_here_or_is_answered(names: str) -> None:
    assert [name for name in names.split() if name not in KEYS and elsewhere.answer(name) is None] == []


def test_every_path_is_a_key() -> None:
    known = {name for schema in (*SCHEMAS, TrainingArguments) for name in config.field_types(schema)}
    assert known | {"logging_dir"} >= reader.PATHS  # which older versions of transformers have


def test_aliases_that_grow_end_in_a_sentence_at_once(tmp_path: Path) -> None:
    lines = ["&a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"&a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    began = time.monotonic()
    with pytest.raises(UserError, match="more than 100,000 values, aliases written out"):
        settings(tmp_path, "report_to: [" + ", ".join(lines) + "]")
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("text", ["[0.9, 0.05, 5e-2]", "0.9,0.05,5e-2"])
def test_a_list_may_be_written_on_the_command_line_as_in_a_file(tmp_path: Path, text: str) -> None:
    assert settings(tmp_path, "", "--split_shares", text)["split_shares"].value == [0.9, 0.05, 0.05]
    assert settings(tmp_path, "", "--audit_allow", "[duplicate]")["audit_allow"].value == ["duplicate"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 1", "run.yaml:4: unknown key 'learning_rat'; did you mean learning_rate?"),
        ("train_on_inputs: no", "run.yaml:4: unknown key 'train_on_inputs'; here it is loss_on: response | all"),
        ("micro_batch_size: 4", "unknown key 'micro_batch_size'; here it is per_device_train_batch_size"),
        ("torch_dtype: x", "here it is dtype: float32 | bfloat16 | float16"),
        ("eos_token: x", "unknown key 'eos_token'; the end of an answer is the model's own, see prompt"),
        ("boss_token: x", "unknown key 'boss_token'; --help lists the keys"),
        ("split_shares: {}", "split_shares: {} is not the shares of train, test and validation, as [0.85, 0.1, 0.05]"),
        ("learning_rate: fast", "run.yaml:4: learning_rate: 'fast' is not a number"),
        ("gradient_accumulation_steps: 0", "run.yaml:4: gradient_accumulation_steps: 0, but it must be at least 1"),
        ("max_length: 0", "run.yaml:4: max_length: 0, but it must be at least 1"),
        ("max_steps: 1.5", "run.yaml:4: max_steps: '1.5' is not a whole number"),
        ("learning_rate: 1_000", "run.yaml:4: learning_rate: '1_000' is not a number"),
        ("max_steps: 1_000", "run.yaml:4: max_steps: '1_000' is not a whole number"),
        ("<<: {seed: 1}", "`<<` is not read; give two --config files instead; the later one wins key by key"),
        ("columns: {<<: {a: b}}", "`<<` is not read"),
        ("report_to: &a [*a]", "nested more than 50 deep"),
        ("columns: " + "[" * 20_000, "nested more than 50 deep"),
        ("seed: 1 #" + "x" * 1_000_000, "longer than 1,000,000 characters"),
        ("bf16: maybe", "run.yaml:4: bf16: 'maybe' is not true or false"),
        ("seed: null", "run.yaml:4: seed: may not be null; expected a whole number"),
        ("loss_on: answer", "'answer' is not one of response, all"),
        ("on_long_row: cut_promt", "did you mean cut_prompt?"),
        ("lr_scheduler_type: cosin", "did you mean cosine?"),
        (
            "columns: task",
            "columns: 'task' is not our names with yours, as {instruction: question, output: answer}",
        ),
        ("seed: 1\nseed: 2", "run.yaml:5: seed is given twice"),
        ("seed: [1", "not YAML"),
    ],
)
def test_a_wrong_value_is_named_with_file_line_and_way_out(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        settings(tmp_path, text)
    assert message in str(error.value)


def test_a_list_of_files_is_answered_with_what_is_possible(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text("data: [a.csv, b.csv]\n")
    line = config.parse_command_line(["--config", str(path)], flags=())
    with pytest.raises(UserError, match=r"data: .* is not one path, or one for each split as"):
        config.read_settings(line, config.field_types(SftConfig))


def test_stray_and_doubled_words_on_the_command_line_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'seed=1' on the command line belongs to no --key"):
        settings(tmp_path, "", "seed=1")
    with pytest.raises(UserError, match="--seed is given twice"):
        settings(tmp_path, "", "--seed", "1", "--seed", "2")


def test_a_missing_key_says_what_it_is_for() -> None:
    with pytest.raises(UserError, match=r"model_name_or_path is missing \(folder or Hub id"):
        config.script_config(SftConfig, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_steps: 5\nnum_train_epochs: 1", "max_steps and num_train_epochs contradict each other"),
        ("eval_strategy: epoch\neval_steps: 5", "eval_steps has no effect with eval_strategy: epoch"),
        ("save_strategy: no\nsave_steps: 5", "save_steps has no effect with save_strategy: no"),
        ("eval_strategy: no\neval_on_start: true", "eval_on_start has no effect with eval_strategy: no"),
        ("save_strategy: no\nsave_total_limit: 1", "save_total_limit has no effect with save_strategy: no"),
        ("hub_token: hf_x", "hub_token has no place here: a token in a file leaks"),
        ("label_smoothing_factor: 0.1", "the loss is the plain mean over supervised tokens"),
        ("load_best_model_at_end: true", "the best checkpoint is kept whenever"),
    ],
)
def test_contradictions_and_options_without_effect_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        training(tmp_path, text)
    assert message in str(error.value) and "run.yaml:" in str(error.value)


def test_the_command_line_may_replace_what_would_contradict_the_file(tmp_path: Path) -> None:
    found = training(tmp_path, "num_train_epochs: 2\neval_steps: 5", "--max_steps", "3", "--eval_strategy", "epoch")
    assert (found["max_steps"].value, found["eval_strategy"].value) == (3, "epoch")


def test_every_refused_key_and_default_is_a_training_argument() -> None:
    known = config.field_types(TrainingArguments)
    named = [
        training_arguments.REFUSED,
        training_arguments.TRAINING_DEFAULTS,
        training_arguments.DEPENDS,
        training_arguments.IDLE_WITHOUT,
    ]
    assert {name for names in named for name in names} <= set(known)


def test_a_key_that_nothing_reads_is_refused(tmp_path: Path) -> None:
    found = settings(tmp_path, "lora_r: 4\nprompt: alpaca")
    with pytest.raises(UserError, match=r"run.yaml:4: lora_r is set, but nothing in this run reads it; .* use_peft"):
        config.refuse_unread(SftConfig, found)


def test_the_command_line_may_switch_off_what_keys_of_the_file_belong_to(tmp_path: Path) -> None:
    found = settings(tmp_path, "use_peft: true\nlora_r: 4", "--use_peft", "false")
    config.refuse_unread(SftConfig, found)
    with pytest.raises(UserError, match="command line: lora_alpha is set, but nothing in this run reads it"):
        config.refuse_unread(SftConfig, found | settings(tmp_path, "", "--lora_alpha", "8"))


SCHEMAS = (
    config.CompareConfig,
    config.PairsConfig,
    ArenaConfig,
    BenchmarkConfig,
    ChatConfig,
    EvalConfig,
    InspectConfig,
    RateConfig,
    SftConfig,
)


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.__name__)
def test_every_key_that_a_condition_names_exists(schema: type) -> None:
    known = {*config.field_types(schema), *config.field_types(TrainingArguments), "word"}
    needs = [each for item in dataclasses.fields(schema) for each in item.metadata["read_when"]]
    assert {name for each in needs for name in each.keys} <= known


@pytest.mark.parametrize(
    ("schema", "word", "text", "message"),
    [
        (
            EvalConfig,
            None,
            "--judge_max_cost 1 --judge_backend ollama",
            "judge_max_cost is set, but nothing in this run reads it; it works with judge_prices",
        ),
        (EvalConfig, None, "--judge_pair_prompt pair --judge_backend ollama", "it works with judge_mode: pair or both"),
        (EvalConfig, None, "--bertscore_model b", "it works with metrics: bertscore"),
        (
            EvalConfig,
            None,
            "--responses r.json --limit 3",
            "limit is set, but nothing in this run reads it; it works with responses: null",
        ),
        (EvalConfig, None, "--engine endpoint --dtype float16", "it works with engine other than endpoint"),
        (EvalConfig, None, "--split train --data d.json", "it works with data: null"),
        (EvalConfig, "generate", "--metrics bleu", "it works with the word compare or score"),
        (EvalConfig, "report", "--judge_backend ollama", "it works with the word compare or judge"),
        (
            BenchmarkConfig,
            None,
            "--tasks helm --num_fewshot 1",
            "it works with tasks other than alpaca_eval, alpaca_method, openai_evals or helm",
        ),
        (BenchmarkConfig, None, "--tasks humaneval --without_sandbox", "it works with unsafe_code: true"),
        (BenchmarkConfig, "execute", "--limit 3", "it works with the word run"),
        (InspectConfig, None, "--step 3", "step is set, but nothing in this run reads it; it works with run"),
        (InspectConfig, None, "--run r --html x.html", "it works with run: null"),
        (SftConfig, None, "--prepared p --audit_allow duplicate", "it works with prepared: null"),
        (
            SftConfig,
            None,
            "--split source --split_shares 1,0,0",
            "works with split: null, shuffled, position or hash; here split is source",
        ),
    ],
)
def test_a_key_without_effect_says_what_it_needs(schema: type, word: str | None, text: str, message: str) -> None:
    line = config.parse_command_line(text.split(), flags=())
    with pytest.raises(UserError) as error:
        config.refuse_unread(schema, config.read_settings(line, config.field_types(schema)), word)
    assert str(error.value).endswith(message)


def test_a_launcher_that_wants_another_precision_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    config.check_launcher(training(tmp_path, "bf16: true"))
    with pytest.raises(UserError, match="mixed_precision: bf16, the run says bf16: false"):
        config.check_launcher(training(tmp_path, ""))


def test_explain_shows_each_value_and_its_source(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(NEEDED + "learning_rate: 2e-5\n")
    line = config.parse_command_line(["--config", f"{tmp_path}/run.yaml", "--seed", "7"], flags=())
    table = config.explain(read_config(line).settings).splitlines()
    rows = {text.split()[0]: text.split(maxsplit=2)[1:] for text in table}
    assert rows["learning_rate"] == ["2e-05", f"{tmp_path}/run.yaml:4"]
    assert rows["seed"] == ["7", "command line"]
    assert rows["eval_on_start"] == ["true", "Heed's default"]
    assert rows["load_best_model_at_end"] == ["true", "follows eval_strategy and save_strategy"]
    assert rows["adam_beta1"] == ["0.9", "default"]
    assert set(config.field_types(SftConfig)) <= set(rows)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_is_understood(path: Path) -> None:
    line = config.parse_command_line(["--config", str(path)], flags=())
    if path.stem == "eval":
        found = config.read_settings(line, config.field_types(EvalConfig))
        assert config.script_config(EvalConfig, found).model_name_or_path == "runs/tiny"
        return
    if path.stem == "arena":
        found = config.read_settings(line, config.field_types(ArenaConfig))
        assert config.script_config(ArenaConfig, found).run == "runs/tiny"
        return
    if path.stem == "benchmarks":
        found = config.read_settings(line, config.field_types(BenchmarkConfig))
        assert find_benchmarks(config.script_config(BenchmarkConfig, found).tasks)
        return
    if path.stem == "dpo":
        dpo = preferences.read_config(line)
        assert (dpo.ours.pairs, dpo.training["output_dir"].value) == ("runs/wordings/pairs.jsonl", "runs/wordings/dpo")
        return
    told = read_config(line)
    assert told.ours.prompt == "model" or (ROOT / "prompts" / f"{told.ours.prompt}.jinja").is_file()
    assert path.read_text().startswith("# ")
    assert told.training["output_dir"].value == f"runs/{path.stem}"


def test_the_textbook_config_is_the_textbook() -> None:
    line = config.parse_command_line(["--config", "configs/gpt2_medium.yaml"], flags=())
    told = read_config(line)
    sft, values = told.ours, {name: setting.value for name, setting in told.settings.items()}
    assert (sft.loss_on, sft.dropout, sft.max_length) == ("all", 0.0, 1024)
    expected = {
        "learning_rate": 5e-5,
        "weight_decay": 0.1,
        "num_train_epochs": 2.0,
        "seed": 123,
        "eval_steps": 5.0,
        "per_device_train_batch_size": 8,
        "dataloader_drop_last": True,
        "optim": "adamw_torch_fused",
    }
    assert {name: values[name] for name in expected} == expected


def test_help_is_grouped_marks_where_to_begin_and_finds_a_word() -> None:
    text = config.help_text(SftConfig, "Doc.", groups=GROUPS, beginners=BEGINNERS)
    marked = re.findall(r"^\* --(\w+)", text, re.M)
    assert sorted(marked) == sorted(BEGINNERS) and len(marked) == 10
    assert text.index("\nadapter:\n  --use_peft") < text.index("\nprompt and data:\n* --prompt")
    found = config.help_text(SftConfig, "Doc.", word="split_shares", groups=GROUPS, beginners=BEGINNERS)
    assert re.findall(r"--(\w+)", found) == ["split_shares"]
    assert config.help_text(SftConfig, "Doc.", word="xyzzy") == (
        "no key of this script has 'xyzzy' in its name or help; --help shows all"
    )


def test_help_lists_every_key_with_its_default() -> None:
    text = config.help_text(SftConfig, "Doc.")
    assert all(f"--{name} " in text for name in config.field_types(SftConfig))
    assert "--lora_r" in text and "(default 16)" in text and "--data" in text and "(required)" in text
    assert '(error | drop | cut_prompt | cut_response; default "error")' in text


def test_a_judges_keys_are_its_settings_with_the_same_defaults() -> None:
    keys = {name.removeprefix("judge_") for name in config.field_types(EvalConfig) if name.startswith("judge_")}
    assert {item.name for item in dataclasses.fields(JudgeSettings)} == keys
    told = judge_settings(EvalConfig(judge_backend="openai", judge_model="m"))
    assert told == JudgeSettings(backend="openai", model="m")
