"""What TRL, axolotl, LLaMA-Factory and litgpt call a key, and what it is called here."""

from collections.abc import Mapping

FLAT = "batching: flat lays examples end to end without padding, and keeps them apart"
LOSS = "loss_on: response | all"
DATA = "data: a file, folder, URL or Hub id"
MODEL = "model_name_or_path: a folder or Hub id"
LENGTH = "max_length, and on_long_row for what is longer"
BATCH = "per_device_train_batch_size: rows of a micro-batch on each device"
ADAPTER = "use_peft: true for LoRA"
PROMPT = "prompt: a file in prompts/, a path to a .jinja, or model for its own chat template"
COLUMNS = "columns: {instruction: THEIRS, output: THEIRS}"
EVALUATION_DATA = "data: {train: FILE, validation: FILE}"
WORKERS = "num_proc: processes that tokenize"

RENAMED: Mapping[str, str] = {
    "packing": FLAT,
    "sample_packing": FLAT,
    "padding_free": FLAT,
    "neat_packing": FLAT,
    "completion_only_loss": LOSS,
    "assistant_only_loss": LOSS,
    "train_on_inputs": LOSS,
    "train_on_prompt": LOSS,
    "mask_prompt": LOSS,
    "dataset_name": DATA,
    "datasets": DATA,
    "dataset": DATA,
    "train_file": DATA,
    "dataset_config": "data_config: a named configuration of a Hub data set",
    "dataset_text_field": COLUMNS,
    "field_instruction": COLUMNS,
    "field_output": COLUMNS,
    "eval_dataset": EVALUATION_DATA,
    "test_datasets": EVALUATION_DATA,
    "validation_file": EVALUATION_DATA,
    "val_size": "split_shares: [train, test, validation]",
    "val_set_size": "split_shares: [train, test, validation]",
    "streaming": "prepared: FOLDER, written once with --prepare, is for sets that do not fit into memory",
    "dataset_prepared_path": "prepared: FOLDER, written once with --prepare",
    "tokenized_path": "prepared: FOLDER, written once with --prepare",
    "interleave_probs": "mixture: {FILE: how often its rows count}, with --prepare",
    "dataset_num_proc": WORKERS,
    "dataset_processes": WORKERS,
    "preprocessing_num_workers": WORKERS,
    "base_model": MODEL,
    "model_name": MODEL,
    "checkpoint_dir": MODEL,
    "torch_dtype": "dtype: float32 | bfloat16 | float16",
    "cutoff_len": LENGTH,
    "sequence_len": LENGTH,
    "max_seq_length": LENGTH,
    "max_seq_len": LENGTH,
    "chat_template": PROMPT,
    "chat_template_path": PROMPT,
    "template": PROMPT,
    "micro_batch_size": BATCH,
    "batch_size": BATCH,
    "eval_batch_size": "per_device_eval_batch_size: rows of a micro-batch on each device",
    "num_epochs": "num_train_epochs",
    "epochs": "num_train_epochs",
    "lr": "learning_rate",
    "lr_scheduler": "lr_scheduler_type",
    "optimizer": "optim",
    "gradient_clipping": "max_grad_norm",
    "evaluation_strategy": "eval_strategy",
    "evals_per_epoch": "eval_steps, with eval_strategy: steps",
    "saves_per_epoch": "save_steps, with save_strategy: steps",
    "warmup_ratio": "warmup_steps, where a number below 1 is a share of all steps",
    "group_by_length": "train_sampling_strategy: group_by_length",
    "finetuning_type": ADAPTER,
    "adapter": ADAPTER,
    "peft_type": ADAPTER,
    "lora_rank": "lora_r",
    "lora_target": "lora_target_modules: [NAME, ...]",
    "lora_target_linear": "lora_target_modules, which may be left out: the default is right for the architecture",
    "quantization_bit": "load_in_4bit: true, with use_peft: true",
    "flash_attention": FLAT,
    "flash_attn": FLAT,
    "early_stopping_steps": "early_stopping_patience: evaluations without a better eval_loss",
    "overwrite_cache": "prepared: another FOLDER; rows that have changed are always tokenized again",
    "hub_model": "hub_model_id: me/my-model, with push_to_hub: true",
    "resume_from": "resume: auto | never | PATH",
    "auto_resume_from_checkpoints": "resume: auto | never | PATH",
    "out_dir": "output_dir",
}

ABSENT: Mapping[str, str] = {
    "load_in_8bit": "frozen weights are kept whole or, with load_in_4bit, in 4 bits",
    "lora_modules_to_save": "an adapter is all that LoRA trains here; leave use_peft out to train all weights",
    "modules_to_save": "an adapter is all that LoRA trains here; leave use_peft out to train all weights",
    "eos_token": "the end of an answer is the model's own, see prompt",
    "pad_token": "padding is never learned, and needs no separate token",
    "special_tokens": "the vocabulary stays the model's own",
    "trust_remote_code": "code that comes with a model is never run",
    "gradient_accumulation": "set gradient_accumulation_steps, or the rows of a step with global_batch_size",
    "stage": "train_sft.py is supervised fine-tuning; leave it out",
    "do_sample": "answers are always greedy; leave it out",
    "use_unsloth": "leave it out; here batching: flat and speed make training fast",
}


def answer(name: str) -> str | None:
    """What to say of a key by the name it has elsewhere; None for a name that none of them uses."""
    if name in RENAMED:
        return f"here it is {RENAMED[name]}"
    return ABSENT.get(name)
