"""What TRL, axolotl, LLaMA-Factory, Unsloth and litgpt call a key, and what it is called here."""

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
EVALUATION_DATA = "data: {train: FILE, validation: FILE}, or several as validation: {NAME: FILE, OTHER: FILE}"
WORKERS = "num_proc: processes that tokenize"
PREPARED = "prepared: FOLDER, written once with --prepare"
FOUR_BIT = "load_in_4bit: true, with use_peft: true"
TARGETS = "lora_target_modules: [NAME, ...]"
CHECKPOINTING = "gradient_checkpointing: true computes activations twice instead of keeping them"
ORDER = "train_sampling_strategy: random | sequential | group_by_length | group_by_prefix"
TRACKER = "report_to: wandb | tensorboard | ..., which read their own environment variables"
NOISE = "neftune_noise_alpha"
RESUME = "resume: auto | never | PATH"

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
    "dataset_prepared_path": PREPARED,
    "tokenized_path": PREPARED,
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
    "lora_target": TARGETS,
    "lora_target_linear": "lora_target_modules, which may be left out: the default is right for the architecture",
    "quantization_bit": FOUR_BIT,
    "flash_attention": FLAT,
    "flash_attn": FLAT,
    "early_stopping_steps": "early_stopping_patience: evaluations without a better eval_loss",
    "overwrite_cache": "prepared: another FOLDER; rows that have changed are always tokenized again",
    "hub_model": "hub_model_id: me/my-model, with push_to_hub: true",
    "resume_from": RESUME,
    "auto_resume_from_checkpoints": RESUME,
    "out_dir": "output_dir",
    **dict.fromkeys(("packing_strategy", "eval_packing", "eval_sample_packing", "pad_to_multiple_of"), FLAT),
    **dict.fromkeys(("pad_to_sequence_len", "sample_packing_group_size", "sample_packing_bin_size"), FLAT),
    **dict.fromkeys(("xformers_attention", "sdp_attention", "flex_attention", "eager_attention", "shift_attn"), FLAT),
    **dict.fromkeys(("truncation_mode", "excess_length_strategy", "sequence_len_overflow_handling"), LENGTH),
    **dict.fromkeys(("model_max_length", "max_packed_sequence_len"), LENGTH),
    **dict.fromkeys(("base_model_config", "tokenizer_config", "model_id"), MODEL),
    **dict.fromkeys(("dataset_dir", "dataset_path", "data_path", "train_dataset"), DATA),
    **dict.fromkeys(("wandb_project", "wandb_entity", "wandb_name", "wandb_run_id", "wandb_watch"), TRACKER),
    **dict.fromkeys(("use_tensorboard", "mlflow_tracking_uri", "mlflow_experiment_name"), TRACKER),
    **dict.fromkeys(("use_swanlab", "swanlab_project", "use_wandb", "use_comet", "trackio_project"), TRACKER),
    **dict.fromkeys(("shuffle_dataset", "shuffle_merged_datasets", "disable_shuffling", "curriculum_sampling"), ORDER),
    **dict.fromkeys(("activation_offloading", "use_unsloth_gc", "disable_gradient_checkpointing"), CHECKPOINTING),
    "use_gradient_checkpointing": CHECKPOINTING,
    "use_reentrant_gc": "gradient_checkpointing_kwargs: {use_reentrant: false}",
    **dict.fromkeys(("bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage"), FOUR_BIT),
    **dict.fromkeys(("double_quantization", "quantization_method", "quantization_type", "bnb_config_kwargs"), FOUR_BIT),
    **dict.fromkeys(("target_modules", "lora_target_parameters"), TARGETS),
    **dict.fromkeys(("lora_modules_to_save", "additional_target"), "modules_to_save: [NAME, ...]"),
    "peft_use_rslora": "use_rslora",
    "peft_use_dora": "use_dora",
    "peft_init_lora_weights": "init_lora_weights: true | false | gaussian | orthogonal",
    **dict.fromkeys(("noisy_embedding_alpha", "neftune_alpha"), NOISE),
    "model_init_kwargs": "dtype, attn_implementation and dropout are keys of their own",
    "mix_strategy": "mixture: {FILE: how often its rows count}, with --prepare",
    "r": "lora_r",
    "random_state": "seed",
    "full_finetuning": "use_peft: false, the default",
    "enable_thinking": PROMPT,
    "max_new_tokens": "compare_max_new_tokens: of the answers after training",
    "cosine_min_lr_ratio": "lr_scheduler_kwargs: {min_lr_rate: 0.1}, with lr_scheduler_type: cosine_with_min_lr",
    "pure_bf16": "dtype: bfloat16",
    "compute_dtype": "bf16: true | false",
    "save_limit": "save_total_limit",
    "early_stopping": "early_stopping_patience: evaluations without a better eval_loss",
    "eval_on_each_dataset": EVALUATION_DATA,
}

VOCABULARY = "the vocabulary stays the model's own"
GREEDY = "answers are always greedy; leave it out"
WEIGHT = "every answer is learned; a turn with weight: 0 is read and not learned"
NEW_ADAPTER = "an adapter begins on its base; merge an earlier one first: python -m heed.merge"
CONFIGURED = "it is read from the model's own config; leave it out"
TUNING = "train_sft.py learns from answers; train_dpo.py learns which of two answers is the better"

ABSENT: Mapping[str, str] = {
    "eos_token": "the end of an answer is the model's own, see prompt",
    "pad_token": "padding is never learned, and needs no separate token",
    **dict.fromkeys(("special_tokens", "tokens", "added_tokens_overrides", "resize_vocab"), VOCABULARY),
    **dict.fromkeys(("add_tokens", "add_special_tokens", "new_special_tokens_config", "bos_token"), VOCABULARY),
    **dict.fromkeys(("temperature", "top_p", "top_k", "num_beams", "repetition_penalty", "length_penalty"), GREEDY),
    **dict.fromkeys(("mask_history", "roles_to_train", "train_on_eos", "train_on_eot"), WEIGHT),
    **dict.fromkeys(("adapter_name_or_path", "lora_model_dir", "create_new_adapter"), NEW_ADAPTER),
    **dict.fromkeys(("merge_lora", "export_dir", "export_size"), "python -m heed.merge writes a merged model"),
    **dict.fromkeys(("model_type", "tokenizer_type", "is_llama_derived_model", "rope_scaling"), CONFIGURED),
    **dict.fromkeys(("use_fast_tokenizer", "lora_fan_in_fan_out", "router_aux_loss_coef"), CONFIGURED),
    **dict.fromkeys(("rl", "ref_model", "reward_model", "pref_beta", "pref_loss", "relora"), TUNING),
    **dict.fromkeys(("hf_hub_token", "hf_use_auth_token"), "a token in a file leaks; use `hf auth login` or HF_TOKEN"),
    **dict.fromkeys(("loraplus_lr_ratio", "loraplus_lr_embedding", "embedding_lr"), "one learning rate is for all"),
    **dict.fromkeys(("fp8", "fp8_backend"), "steps are computed in bf16, fp16 or float32"),
    **dict.fromkeys(("enable_liger_kernel", "plugins"), "the head is already computed only at labels; leave it out"),
    **dict.fromkeys(("freeze_trainable_layers", "unfrozen_parameters"), "all weights are trained, or an adapter"),
    **dict.fromkeys(("pissa_init", "pissa_convert", "loftq_config"), "an adapter never rewrites its base's weights"),
    "loss_type": "the loss is the mean cross-entropy over learned tokens",
    "dataset_kwargs": "rows are never left as they are; prompt renders them",
    "default_system": "write it into the rows as `system`, or into a prompt of your own",
    "max_samples": "make a file of as many rows; a run reads all of its data",
    "cache_dir": "set the environment variable HF_HOME",
    "plot_loss": "loss.png is always drawn",
    "save_safetensors": "weights are always safetensors",
    "bias": "an adapter trains no biases",
    "dataset_exact_deduplication": "inspect_data.py --export FILE leaves repeated rows out",
    "device_map": "the launcher says which devices; leave it out",
    "trust_remote_code": "code that comes with a model is never run",
    "gradient_accumulation": "set gradient_accumulation_steps, or the rows of a step with global_batch_size",
    "stage": TUNING,
    "do_sample": GREEDY,
    "use_unsloth": "leave it out; here batching: flat and speed make training fast",
}


def answer(name: str) -> str | None:
    """What to say of a key by the name it has elsewhere; None for a name that none of them uses."""
    if name in RENAMED:
        return f"here it is {RENAMED[name]}"
    return ABSENT.get(name)
