"""Arguments of earlier versions of TRL and transformers, of TRL's other trainers, and of the alignment handbook."""

from __future__ import annotations

from tiltlm.config.from_trl.argument import lost, mapped, moot, renamed

_ANSWERS = "Answers to held-out prompts are shown before and after: [comparison]."
_SAFETENSORS = "Weights are saved as safetensors."
_NO_PADDING = "Examples are packed; nothing is padded."
_CAUSAL = "The models are causal language models."
_CACHED = "The reference is computed once, before training, and kept for every later run."
_ONE_DEVICE = "One device trains."
_RECORDED = "metrics.jsonl has the tokens of every step, and training's time."
_OWN_REFERENCE = "The reference is the model as it enters training; another is named by model.reference."

TRANSFORMERS = (
    renamed("evaluation_strategy", "eval_strategy"),
    renamed("no_cuda", "use_cpu"),
    renamed("per_gpu_train_batch_size", "per_device_train_batch_size"),
    mapped("warmup_ratio", "number", 0.0, "training.warmup_steps", "A share of the steps; see --pairs."),
    mapped("overwrite_output_dir", "switch", False, "run.overwrite"),
    lost("group_by_length", "switch", False, "Every pass is a new random order; packing does without groups."),
    moot("per_gpu_eval_batch_size", "whole", None, "Micro-batches are cut by training.micro_batch_tokens."),
    moot("logging_dir", "text", None, "metrics.jsonl lies in the run's folder; trackers have places of their own."),
    moot("save_safetensors", "switch", True, _SAFETENSORS),
    moot("half_precision_backend", "text", "auto", "PyTorch's own."),
    moot("fp16_backend", "text", "auto", "PyTorch's own."),
    moot("fp16_opt_level", "text", "O1", "PyTorch's own."),
    moot("use_ipex", "switch", False, "PyTorch's own kernels are used."),
    moot("use_mps_device", "switch", False, "model.device finds Apple's GPU by itself."),
    moot("jit_mode_eval", "switch", False, "Models run as they are."),
    moot("torchdynamo", "text", None, "Models run as they are."),
    moot("include_tokens_per_second", "switch", False, _RECORDED),
    moot("include_inputs_for_metrics", "switch", False, "Held-out figures are tiltlm's own."),
    moot("past_index", "whole", -1, _CAUSAL),
    moot("tpu_num_cores", "whole", None, _ONE_DEVICE),
    moot("tpu_metrics_debug", "switch", False, _ONE_DEVICE),
    moot("mp_parameters", "text", "", _ONE_DEVICE),
    moot("ray_scope", "text", "last", "Searches are `tiltlm sweep`."),
    moot("split_batches", "switch", None, _ONE_DEVICE),
    moot("dispatch_batches", "switch", None, _ONE_DEVICE),
    moot("fsdp_min_num_params", "whole", 0, _ONE_DEVICE),
    moot("fsdp_transformer_layer_cls_to_wrap", "text", None, _ONE_DEVICE),
    moot("push_to_hub_model_id", "text", None, "Nothing is uploaded."),
    moot("push_to_hub_organization", "text", None, "Nothing is uploaded."),
    moot("push_to_hub_token", "text", None, "Nothing is uploaded.", "<PUSH_TO_HUB_TOKEN>"),
    lost("sortish_sampler", "switch", False, "Every pass is a new random order."),
)
TRL = (
    renamed("torch_dtype", "dtype"),
    mapped("max_prompt_length", "whole", None, "data.max_prompt_length", "Where below max_length."),
    lost("max_completion_length", "whole", None, "Completions are limited by max_length alone."),
    lost("max_target_length", "whole", None, "Completions are limited by max_length alone."),
    mapped("rpo_alpha", "number", None, "loss.name loss.nll_weight", "With sigmoid: rpo."),
    lost("reference_free", "switch", False, "Losses without a reference are simpo, cpo, orpo and slic."),
    lost("ref_model_init_kwargs", "table", None, _OWN_REFERENCE, {}),
    lost("force_use_ref_model", "switch", False, _OWN_REFERENCE),
    lost("model_adapter_name", "text", None, _OWN_REFERENCE),
    lost("ref_adapter_name", "text", None, _OWN_REFERENCE),
    moot("generate_during_eval", "switch", False, _ANSWERS),
    moot("is_encoder_decoder", "switch", None, _CAUSAL),
    moot("label_pad_token_id", "whole", -100, _NO_PADDING),
    moot("padding_value", "whole", None, _NO_PADDING),
    moot("precompute_ref_eval_batch_size", "whole", None, _CACHED),
    moot("precompute_train_ref_log_probs", "switch", False, _CACHED),
    moot("precompute_eval_ref_log_probs", "switch", False, _CACHED),
    moot("base_model_attribute_name", "text", "model", "Hidden states are taken where the model has them."),
    moot("use_logits_to_keep", "switch", False, "What is not scored never passes the output head."),
    moot("use_num_logits_to_keep", "switch", False, "What is not scored never passes the output head."),
    moot("use_liger_loss", "switch", False, "Logits alive are bounded here too."),
    moot("gradient_checkpointing_use_reentrant", "switch", False, "It changes no result."),
    lost("sanity_check", "switch", False, "data.max_train_pairs trains on few pairs."),
    lost("tools", "any", None, "Tools are a column of the data.", []),
    mapped("simpo_gamma", "number", 0.5, "loss.gamma_beta_ratio", "Of CPOConfig's loss simpo: divided by beta."),
    mapped("cpo_alpha", "number", 1.0, "loss.nll_weight", "Of CPOConfig; simpo has no such term."),
    mapped("desirable_weight", "number", 1.0, "loss.desirable_weight", "Of KTOConfig."),
    mapped("undesirable_weight", "number", 1.0, "loss.undesirable_weight", "Of KTOConfig."),
)
HANDBOOK = (
    mapped("dataset_mixer", "table", None, "data.train", "One; several are put together beforehand."),
    mapped(
        "dataset_mixture", "table", None, "data.train data.subset data.train_split data.eval_fraction", "As `datasets`."
    ),
    mapped(
        "dataset_splits",
        "texts",
        None,
        "data.train_split data.eval_split",
        "The first that begins with train, and with test.",
    ),
    mapped("dataset_configs", "texts", None, "data.subset"),
    renamed("dataset_id_or_path", "dataset_name"),
    moot("preprocessing_num_workers", "whole", None, "Tokens are kept, and found again by content."),
    lost("chat_template", "text", None, "model.chat_template takes the name of a template, or a file that holds one."),
    lost("auto_insert_empty_system_msg", "switch", True, "No turn is added to a chat."),
    moot("text_column", "text", "text", "Columns are recognised; data.columns names others."),
    moot("max_seq_length", "whole", None, "max_length is DPO's."),
    moot("torch_compile_options", "any", None, "It is inductor, for any shape."),
)
ARGUMENTS = (*TRANSFORMERS, *TRL, *HANDBOOK)
