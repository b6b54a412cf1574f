"""Arguments that TRL's trainers take over from transformers' TrainingArguments, in its order."""

from __future__ import annotations

from tiltlm.config.from_trl.argument import lost, mapped, moot

_BATCH = "per_device_train_batch_size × gradient_accumulation_steps × processes: how it is cut changes no result."
_MOMENTS = "AdamW's are 0.9, 0.999 and 1e-8 here, PyTorch's own."
_ONE_DEVICE = "One device trains; what one cannot hold needs a smaller model or [adapter]."
_CUT = "Micro-batches are cut by training.micro_batch_tokens; lower it when memory runs out."
_WORKER = "Plans are made ahead by a worker of its own."
_UPLOAD = "Nothing is uploaded; `hf upload NAME RUN/model` does that."
_ALL_SAVED = "Checkpoints hold the whole state of one process."
_MEASURES = "Held-out figures are tiltlm's own, and no code of yours is called for them."
_CONSOLE = "What is shown follows from the terminal."
_SPACES = "The tracker's own settings decide where its figures go."

_ACCELERATOR = {
    "split_batches": False,
    "dispatch_batches": None,
    "even_batches": True,
    "use_seedable_sampler": True,
    "non_blocking": False,
    "gradient_accumulation_kwargs": None,
}
"""What TrainingArguments makes of no accelerator_config, as a dump has it."""

BATCHES = (
    mapped("per_device_train_batch_size", "whole", 8, "training.batch_pairs", _BATCH),
    mapped("gradient_accumulation_steps", "whole", 1, "training.batch_pairs", _BATCH),
    moot("average_tokens_across_devices", "switch", True, "Losses are means over the whole batch in any case.", False),
    moot("auto_find_batch_size", "switch", False, _CUT),
    moot("per_device_eval_batch_size", "whole", 8, _CUT),
    moot("eval_accumulation_steps", "whole", None, _CUT),
)
STEPS = (
    mapped("num_train_epochs", "number", 3.0, "training.epochs", "A part of a pass becomes steps; see --pairs."),
    mapped("max_steps", "whole", -1, "training.max_steps", "Where above 0, in place of epochs."),
    mapped("learning_rate", "number", 1e-6, "training.learning_rate"),
    mapped(
        "lr_scheduler_type", "text", "linear", "training.schedule", "constant, linear and cosine have counterparts."
    ),
    lost("lr_scheduler_kwargs", "table", None, "The schedules have no settings of their own.", {}, ""),
    mapped("warmup_steps", "number", 0, "training.warmup_steps", "Below 1 a share of the steps; see --pairs."),
    mapped(
        "optim", "text", "adamw_torch_fused", "training.optimizer", "Every AdamW becomes adamw in float32; rmsprop."
    ),
    lost("optim_args", "text", None, "The optimizers have no further settings.", ""),
    mapped("weight_decay", "number", 0.0, "training.weight_decay", "Here of all weights, biases and norms included."),
    lost("adam_beta1", "number", 0.9, _MOMENTS),
    lost("adam_beta2", "number", 0.999, _MOMENTS),
    lost("adam_epsilon", "number", 1e-8, _MOMENTS),
    lost("optim_target_modules", "any", None, "All weights have the same optimizer."),
    mapped("max_grad_norm", "number", 1.0, "training.gradient_clip", "0 turns clipping off in both."),
    moot("label_smoothing_factor", "number", 0.0, "TRL's preference losses do not read it either."),
    lost("neftune_noise_alpha", "number", None, "No noise is added to embeddings.", 0.0),
)
ARITHMETIC = (
    mapped("bf16", "switch", None, "model.precision", "bfloat16, or float32 where false; not given: auto."),
    mapped(
        "fp16", "switch", False, "model.precision", "There is no float16: bfloat16 has its range and needs no scaling."
    ),
    moot("bf16_full_eval", "switch", False, "Figures of the saved model are taken in float32."),
    moot("fp16_full_eval", "switch", False, "Figures of the saved model are taken in float32."),
    lost("tf32", "switch", None, "PyTorch's own setting is left as it is.", False),
    mapped("activation_checkpointing", "switch", None, "training.activation_checkpointing"),
    lost(
        "activation_checkpointing_kwargs",
        "table",
        None,
        "It has no settings; every layer is recomputed.",
        {},
        {"use_reentrant": False},
        {"use_reentrant": True},
    ),
    mapped("gradient_checkpointing", "switch", True, "training.activation_checkpointing"),
    lost(
        "gradient_checkpointing_kwargs",
        "table",
        None,
        "It has no settings; every layer is recomputed.",
        {},
        {"use_reentrant": False},
        {"use_reentrant": True},
    ),
    mapped("torch_compile", "switch", False, "training.compile"),
    moot("torch_compile_backend", "text", None, "It is inductor, for any shape."),
    moot("torch_compile_mode", "text", None, "It is inductor, for any shape."),
    moot("use_liger_kernel", "switch", False, "Logits alive are bounded here too; the layers are the model's own."),
    moot("liger_kernel_config", "table", None, "Logits alive are bounded here too; the layers are the model's own."),
    moot("use_cache", "switch", False, "Training keeps no keys and values."),
    moot("torch_empty_cache_steps", "whole", None, _CUT),
    mapped("use_cpu", "switch", False, "model.device"),
)
WORDS = (
    moot("logging_strategy", "text", "steps", "Every step is recorded, in metrics.jsonl.", "epoch", "no"),
    moot("logging_steps", "number", 10, "Every step is recorded, in metrics.jsonl."),
    moot("logging_first_step", "switch", False, "Every step is recorded, in metrics.jsonl."),
    moot("log_on_each_node", "switch", True, "There is one process."),
    moot("logging_nan_inf_filter", "switch", True, "A loss that is not finite stops the run, and names the pairs."),
    moot("include_num_input_tokens_seen", "any", "no", "metrics.jsonl has the tokens of every step.", False),
    moot("log_level", "text", "passive", _CONSOLE),
    moot("log_level_replica", "text", "warning", _CONSOLE),
    moot("disable_tqdm", "switch", None, _CONSOLE, False),
    mapped("report_to", "texts", "none", "run.trackers", "Of trackers that tiltlm knows."),
    mapped("run_name", "text", None, "run.name", "Where output_dir does not name the run."),
    lost("project", "text", "huggingface", _SPACES),
    lost("trackio_space_id", "text", None, _SPACES),
    lost("trackio_bucket_id", "text", None, _SPACES),
    lost("trackio_static_space_id", "any", None, _SPACES),
    moot("skip_memory_metrics", "switch", True, "The peak of memory is in outcome.json."),
    moot("debug", "texts", "", "A step that goes wrong is named as it is.", []),
)
EVALUATION = (
    mapped(
        "eval_strategy",
        "text",
        "no",
        "training.eval_every data.eval",
        "`no`: at start and end alone, on a split-off share.",
    ),
    mapped("eval_steps", "number", None, "training.eval_every", "Not given: logging_steps, as in transformers."),
    lost("eval_delay", "number", 0, "Evaluation begins at the start."),
    moot("prediction_loss_only", "switch", False, _MEASURES),
    moot("eval_on_start", "switch", False, "There is an evaluation at the start in any case."),
    moot("eval_do_concat_batches", "switch", True, _MEASURES),
    moot("eval_use_gather_object", "switch", False, _MEASURES),
    moot("include_for_metrics", "texts", [], _MEASURES),
    moot("batch_eval_metrics", "switch", False, _MEASURES),
    moot("label_names", "texts", None, _MEASURES),
)
SAVING = (
    mapped("output_dir", "text", None, "run.directory run.name", "The run's folder is DIRECTORY/NAME."),
    moot("save_only_model", "switch", False, "Checkpoints hold all that training goes on from."),
    mapped("save_strategy", "text", "steps", "checkpoint.every_steps checkpoint.every_minutes", "`no`: none."),
    mapped(
        "save_steps", "number", 500, "checkpoint.every_steps checkpoint.every_minutes", "Where given, none by time."
    ),
    moot("save_on_each_node", "switch", False, "There is one process."),
    mapped("save_total_limit", "whole", None, "checkpoint.keep"),
    moot("enable_jit_checkpoint", "switch", False, "A run that is told to stop takes a checkpoint in any case."),
    lost("push_to_hub", "switch", False, _UPLOAD),
    moot("hub_token", "text", None, _UPLOAD, "<HUB_TOKEN>"),
    moot("hub_private_repo", "switch", None, _UPLOAD),
    moot("hub_model_id", "text", None, _UPLOAD),
    moot("hub_strategy", "text", "every_save", _UPLOAD),
    moot("hub_always_push", "switch", False, _UPLOAD),
    moot("hub_revision", "text", None, _UPLOAD),
    lost(
        "load_best_model_at_end",
        "switch",
        False,
        "The saved model is the last; `tiltlm export RUN FOLDER` writes the best.",
    ),
    mapped("metric_for_best_model", "text", None, "checkpoint.best", "Loss or accuracy."),
    moot("greater_is_better", "switch", None, "It follows from the figure."),
    moot("ignore_data_skip", "switch", False, "A run that goes on reads the examples it would have read."),
    moot("restore_callback_states_from_checkpoint", "switch", False, _ALL_SAVED),
    lost("resume_from_checkpoint", "text", None, "A run of tiltlm goes on by `tiltlm train --resume RUN`."),
)
PROCESSES = (
    mapped("full_determinism", "switch", False, "training.deterministic"),
    mapped("seed", "whole", 42, "run.seed", "Of order, split and answers; no order is the same as transformers'."),
    lost("data_seed", "whole", None, "The order of the data is that of run.seed."),
    moot("accelerator_config", "any", None, "There is one process.", _ACCELERATOR),
    lost("parallelism_config", "any", None, _ONE_DEVICE),
    lost("dataloader_drop_last", "switch", False, "The last, smaller step of a pass is trained on."),
    moot("dataloader_num_workers", "whole", 0, _WORKER),
    moot("dataloader_pin_memory", "switch", True, _WORKER, False),
    moot("dataloader_persistent_workers", "switch", False, _WORKER),
    moot("dataloader_prefetch_factor", "whole", None, _WORKER),
    moot("dataloader_multiprocessing_context", "text", None, _WORKER),
    moot("dataloader_in_order", "switch", True, _WORKER, False),
    moot("remove_unused_columns", "switch", True, "Columns that are not used are named, and kept out.", False),
    lost("train_sampling_strategy", "text", "random", "Every pass is a new random order; packing does without groups."),
    moot("length_column_name", "text", "length", "Lengths are counted in tokens."),
    moot("ddp_find_unused_parameters", "switch", None, _ONE_DEVICE),
    moot("ddp_bucket_cap_mb", "whole", None, _ONE_DEVICE),
    moot("ddp_broadcast_buffers", "switch", None, _ONE_DEVICE),
    moot("ddp_static_graph", "switch", None, _ONE_DEVICE),
    moot("ddp_backend", "text", None, _ONE_DEVICE),
    moot("ddp_timeout", "whole", 1800, _ONE_DEVICE),
    lost("fsdp", "texts", None, _ONE_DEVICE, [], "", False, ["false"]),
    lost("fsdp_config", "any", None, _ONE_DEVICE, {}),
    lost("deepspeed", "any", None, _ONE_DEVICE),
    moot("do_train", "switch", False, "tiltlm train trains."),
    moot("do_eval", "switch", False, "eval_strategy says whether and when."),
    moot("do_predict", "switch", False, "Answers to held-out prompts are shown before and after: [comparison]."),
    moot("local_rank", "whole", -1, _ONE_DEVICE, 0),
)
ARGUMENTS = (*BATCHES, *STEPS, *ARITHMETIC, *WORDS, *EVALUATION, *SAVING, *PROCESSES)
