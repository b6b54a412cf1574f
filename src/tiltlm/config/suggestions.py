"""What a person may have meant: names that other trainers give to the same things."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from tiltlm.objectives import ALIASES

# Options as TRL, transformers, LLaMA-Factory and others call them, in lower case with underscores.
OPTIONS = {
    "lr": "training.learning_rate",
    "lr_scheduler": "training.schedule",
    "lr_scheduler_type": "training.schedule",
    "scheduler": "training.schedule",
    "warmup": "training.warmup_steps",
    "warmup_ratio": "training.warmup_steps",
    "num_warmup_steps": "training.warmup_steps",
    "wd": "training.weight_decay",
    "optim": "training.optimizer",
    "num_train_epochs": "training.epochs",
    "num_epochs": "training.epochs",
    "n_epochs": "training.epochs",
    "epoch": "training.epochs",
    "steps": "training.max_steps",
    "num_steps": "training.max_steps",
    "max_train_steps": "training.max_steps",
    "bs": "training.batch_pairs",
    "batch": "training.batch_pairs",
    "batch_size": "training.batch_pairs",
    "train_batch_size": "training.batch_pairs",
    "global_batch_size": "training.batch_pairs",
    "per_device_train_batch_size": "training.batch_pairs",
    "per_device_eval_batch_size": "training.micro_batch_tokens",
    "micro_batch_size": "training.micro_batch_tokens",
    "gradient_accumulation_steps": "training.micro_batch_tokens",
    "gradient_checkpointing": "training.activation_checkpointing",
    "grad_clip": "training.gradient_clip",
    "max_grad_norm": "training.gradient_clip",
    "eval_steps": "training.eval_every",
    "loss_type": "loss.name",
    "loss": "loss.name",
    "objective": "loss.name",
    "dpo_beta": "loss.beta",
    "f_divergence_type": "loss.divergence",
    "f_alpha_divergence_coef": "loss.divergence_alpha",
    "discopop_tau": "loss.tau",
    "ld_alpha": "loss.alpha",
    "simpo_gamma": "loss.gamma_beta_ratio",
    "rpo_alpha": "loss.nll_weight",
    "cpo_alpha": "loss.nll_weight",
    "sft_weight": "loss.nll_weight",
    "dpop_lambda": "loss.penalty",
    "pref_beta": "loss.beta",
    "pref_loss": "loss.name",
    "max_len": "data.max_length",
    "max_seq_len": "data.max_length",
    "max_seq_length": "data.max_length",
    "cutoff_len": "data.max_length",
    "block_size": "data.max_length",
    "max_prompt_len": "data.max_prompt_length",
    "dataset": "data.train",
    "dataset_name": "data.train",
    "dataset_path": "data.train",
    "data_path": "data.train",
    "train_data": "data.train",
    "train_file": "data.train",
    "train_dataset": "data.train",
    "data": "data.train",
    "dataset_config": "data.subset",
    "dataset_train_split": "data.train_split",
    "dataset_test_split": "data.eval_split",
    "eval_data": "data.eval",
    "eval_dataset": "data.eval",
    "validation_file": "data.eval",
    "test_size": "data.eval_fraction",
    "val_size": "data.eval_fraction",
    "max_train_samples": "data.max_train_pairs",
    "max_samples": "data.max_train_pairs",
    "max_eval_samples": "data.max_eval_pairs",
    "model": "model.path",
    "model_name": "model.path",
    "model_name_or_path": "model.path",
    "model_id": "model.path",
    "base_model": "model.path",
    "ref_model": "model.reference",
    "reference_model": "model.reference",
    "dtype": "model.precision",
    "torch_dtype": "model.precision",
    "bf16": "model.precision",
    "fp16": "model.precision",
    "fp32": "model.precision",
    "mixed_precision": "model.precision",
    "cpu": "model.device",
    "use_cpu": "model.device",
    "gpu": "model.device",
    "cuda": "model.device",
    "output_dir": "run.directory",
    "output": "run.directory",
    "out": "run.directory",
    "out_dir": "run.directory",
    "save_dir": "run.directory",
    "overwrite_output_dir": "run.overwrite",
    "force": "run.overwrite",
    "run_name": "run.name",
    "exp_name": "run.name",
    "prompt": "comparison.extra_prompts",
    "max_tokens": "comparison.max_new_tokens",
    "save_steps": "checkpoint.every_steps",
    "save_every": "checkpoint.every_steps",
    "save_interval": "checkpoint.every_steps",
    "checkpointing_steps": "checkpoint.every_steps",
    "save_total_limit": "checkpoint.keep",
    "keep_last": "checkpoint.keep",
    "load_best_model_at_end": "checkpoint.best",
    "metric_for_best_model": "checkpoint.best",
    "temp": "comparison.temperature",
    "num_samples": "comparison.samples",
}

_NO_ADAPTERS = "There are no adapters and no quantised training: all weights are trained."
_RESUME = "A run goes on from its last checkpoint: tiltlm train --resume runs/NAME."
_NO_TRACKERS = "Nothing is sent anywhere: metrics.jsonl and report.html in the run's folder hold it all."
_FILE = "A file of settings is named without a flag: tiltlm train FILE.toml."
# What others have an option for, and tiltlm does otherwise.
NOTES = {
    "c": _FILE,
    "config": _FILE,
    "config_file": _FILE,
    "use_peft": _NO_ADAPTERS,
    "use_lora": _NO_ADAPTERS,
    "lora": _NO_ADAPTERS,
    "lora_r": _NO_ADAPTERS,
    "lora_rank": _NO_ADAPTERS,
    "lora_alpha": _NO_ADAPTERS,
    "load_in_4bit": _NO_ADAPTERS,
    "load_in_8bit": _NO_ADAPTERS,
    "resume_from_checkpoint": _RESUME,
    "resume_from": _RESUME,
    "auto_resume": _RESUME,
    "report_to": _NO_TRACKERS,
    "wandb": _NO_TRACKERS,
    "wandb_project": _NO_TRACKERS,
}

# Values of an option as others call them.
VALUES: dict[str, Mapping[str, str]] = {
    "loss.name": ALIASES,
    "training.optimizer": {"adam": "adamw", "adamw_torch": "adamw", "adamw_hf": "adamw", "rms": "rmsprop"},
    "training.schedule": {"constant_with_warmup": "constant", "none": "constant", "cos": "cosine"},
    "model.precision": {"bf16": "bfloat16", "fp32": "float32", "float": "float32", "fp16": "bfloat16"},
    "model.save_dtype": {
        "bf16": "bfloat16",
        "fp16": "float16",
        "half": "float16",
        "fp32": "float32",
        "float": "float32",
    },
    "model.device": {"gpu": "cuda", "cuda:0": "cuda", "metal": "mps"},
    "data.format": {"alpaca": "instruction", "conversational": "chat", "hh": "dialogue"},
}


def nearest_value(option: str, value: str, choices: Sequence[str]) -> str | None:
    """The choice of an option that a value may stand for."""
    known = VALUES.get(option, {}).get(value.lower())
    return known if known in choices else _close(value.lower(), choices)


def nearest_options(name: str, options: Sequence[str]) -> list[str]:
    """The options (`section.option`) that a name may stand for, best first; empty where nothing is like it.

    name: as it was written, `lr`, `losss.name`, `training.num-epochs`; without leading dashes.
    """
    plain = name.lower().replace("-", "_")
    last = plain.rpartition(".")[2]
    by_last = [option for option in options if option.rpartition(".")[2] == last]
    if by_last and plain not in options:
        return sorted(by_last, key=lambda option: -difflib.SequenceMatcher(None, option, plain).ratio())
    if "." in plain and (spelt := difflib.get_close_matches(plain, options, n=1, cutoff=0.9)):
        return spelt
    if OPTIONS.get(last) in options:
        return [OPTIONS[last]]
    if begun := begun_with(last, [option.rpartition(".")[2] for option in options]):
        return [option for option in options if option.rpartition(".")[2] in begun]
    whole = _close(plain, options)
    if whole is not None:
        return [whole]
    part = _close(last, [option.rpartition(".")[2] for option in options])
    return [option for option in options if option.rpartition(".")[2] == part] if part else []


def begun_with(word: str, known: Sequence[str]) -> list[str]:
    """The known names of several words whose first words are the one given: `gamma` of `gamma_beta_ratio`."""
    return [name for name in known if len(word) > 2 and name.startswith(f"{word}_")]


def note_on(name: str) -> str | None:
    """What to say to an option that other trainers have and this one does otherwise; None where there is nothing."""
    return NOTES.get(name.lower().replace("-", "_").rpartition(".")[2])


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name that another is a misspelling of; None where there is none like it."""
    return _close(name.lower(), known)


def _close(name: str, known: Sequence[str]) -> str | None:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return near[0] if near else None
