"""Arguments that DPOConfig adds, in its order."""

from __future__ import annotations

from tiltlm.config.from_trl.argument import lost, mapped, moot

_NO_PADDING = "Examples are packed; nothing is padded."
_CACHED = "The reference is computed once, before training, and kept for every later run."

ARGUMENTS = (
    mapped(
        "model_init_kwargs",
        "table",
        None,
        "model.precision",
        "Its dtype, revision, attention and trust_remote_code as if given alone.",
    ),
    mapped("trust_remote_code", "switch", False, "model.trust_remote_code"),
    lost("router_aux_loss_coef", "number", None, "No loss that balances experts is added.", 0.0),
    lost("disable_dropout", "switch", True, "Dropout is off for policy and reference alike."),
    moot("dataset_num_proc", "whole", None, "Tokens are kept, and found again by content."),
    mapped(
        "max_length",
        "whole",
        1024,
        "data.max_length data.long_completions",
        "null has no counterpart: write the length that the model allows.",
    ),
    mapped(
        "truncation_mode",
        "text",
        "keep_start",
        "data.long_completions",
        "keep_start: completions are cut at their end; prompts lose their beginning here.",
    ),
    moot("padding_free", "switch", False, _NO_PADDING),
    moot("pad_to_multiple_of", "any", "auto", _NO_PADDING),
    moot("precompute_ref_log_probs", "switch", False, _CACHED),
    moot("precompute_ref_batch_size", "whole", None, _CACHED),
    mapped(
        "loss_type",
        "texts",
        ["sigmoid"],
        "loss.name",
        "By the same names; sigmoid with sft is rpo, and with bco_pair and sft mpo.",
    ),
    mapped("loss_weights", "numbers", None, "loss.nll_weight", "The weights of a mix that has a name here.", [1.0]),
    mapped("ld_alpha", "number", None, "loss.name loss.alpha", "With sigmoid: ld_dpo."),
    mapped(
        "f_divergence_type", "text", "reverse_kl", "loss.divergence", "js_divergence is js, alpha_divergence alpha."
    ),
    mapped("f_alpha_divergence_coef", "number", 0.5, "loss.divergence_alpha", "1 minus it: the paper's α."),
    mapped(
        "label_smoothing",
        "number",
        0.0,
        "loss.label_smoothing",
        "Of robust, exo_pair, aot and aot_unpaired; TRL's other losses do not read it.",
    ),
    mapped("beta", "number", 0.1, "loss.beta"),
    mapped("use_weighting", "switch", False, "loss.name", "With sigmoid: wpo."),
    mapped("discopop_tau", "number", 0.05, "loss.tau"),
    moot("activation_offloading", "switch", False, "Lower training.micro_batch_tokens where memory runs out."),
    mapped("sync_ref_model", "switch", False, "loss.name", "With sigmoid: tr_dpo."),
    mapped("ref_model_mixup_alpha", "number", 0.6, "loss.alpha", "Of tr_dpo."),
    mapped("ref_model_sync_steps", "whole", 512, "loss.update_every", "Of tr_dpo."),
    moot("pad_token", "text", None, _NO_PADDING, "<PAD_TOKEN>"),
)
