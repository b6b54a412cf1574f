"""Arguments of TRL's script beside the trainer's: ScriptArguments, ModelConfig and DatasetMixtureConfig."""

from __future__ import annotations

from tiltlm.config.from_trl.argument import lost, mapped, moot

_ATTENTION = "The attention that suits the model is used."

SCRIPT_ARGUMENTS = (
    mapped("dataset_name", "text", None, "data.train data.eval", "The data are recognised by their columns."),
    mapped("dataset_config", "text", None, "data.subset"),
    mapped("dataset_train_split", "text", "train", "data.train_split"),
    mapped("dataset_test_split", "text", "test", "data.eval_split", "Where eval_strategy is not `no`."),
    lost("dataset_streaming", "switch", False, "Data are read whole."),
    moot("ignore_bias_buffers", "switch", False, "One device trains."),
)
MODEL_ARGUMENTS = (
    mapped("model_name_or_path", "text", None, "model.path"),
    lost(
        "model_revision",
        "text",
        "main",
        "The newest revision is read: download yours, and name its folder in model.path.",
    ),
    mapped(
        "dtype",
        "text",
        "float32",
        "model.precision",
        "The weights are float32 here whatever it is; bf16 says how is computed.",
    ),
    moot("attn_implementation", "text", None, _ATTENTION),
    mapped("use_peft", "switch", False, "adapter.kind"),
    mapped("lora_r", "whole", 16, "adapter.rank"),
    mapped("lora_alpha", "whole", 32, "adapter.alpha"),
    lost("lora_dropout", "number", 0.05, "No dropout in adapters; TRL's disable_dropout turns it off there too.", 0.0),
    mapped("lora_target_modules", "texts", None, "adapter.targets"),
    lost("lora_target_parameters", "texts", None, "Single parameters are not adapted.", []),
    lost("lora_modules_to_save", "texts", None, "No module is trained whole beside adapters.", []),
    lost("lora_task_type", "text", "CAUSAL_LM", "The models are causal language models."),
    mapped("use_rslora", "switch", False, "adapter.kind"),
    mapped("use_dora", "switch", False, "adapter.kind"),
    mapped("load_in_8bit", "switch", False, "adapter.quantise"),
    mapped("load_in_4bit", "switch", False, "adapter.quantise"),
    mapped("bnb_4bit_quant_type", "text", "nf4", "adapter.quantise"),
    mapped("use_bnb_nested_quant", "switch", False, "adapter.quantise"),
    moot("bnb_4bit_quant_storage", "text", None, "How numbers are packed in memory changes no result."),
)
MIXTURE_ARGUMENTS = (
    mapped(
        "datasets", "any", [], "data.train data.subset data.train_split", "One; several are put together beforehand."
    ),
    lost("streaming", "switch", False, "Data are read whole."),
    mapped("test_split_size", "number", None, "data.eval_fraction"),
)
COMMAND_ARGUMENTS = (
    mapped("num_processes", "whole", 1, "training.batch_pairs", "Of `trl dpo`; or --processes."),
    moot("accelerate_config", "text", None, "One device trains."),
    moot("config", "text", None, "This file."),
    lost("env", "table", None, "Environment variables are set where the command is called.", {}),
)
ARGUMENTS = (*SCRIPT_ARGUMENTS, *MODEL_ARGUMENTS, *MIXTURE_ARGUMENTS, *COMMAND_ARGUMENTS)
