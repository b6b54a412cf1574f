"""The sections [training] and [checkpoint]."""

from __future__ import annotations

import math

from tiltlm.config.from_trl.draft import Draft

_SCHEDULES = {
    "constant": "constant",
    "constant_with_warmup": "constant",
    "linear": "linear",
    "cosine": "cosine",
}
_NEAR = {
    "polynomial": "linear",
    "warmup_stable_decay": "linear",
    "inverse_sqrt": "constant",
    "reduce_lr_on_plateau": "constant",
    "greedy": "constant",
}
"""Schedules without a counterpart, and the one that stands in for each; for all others that is cosine."""
_ADAMW = (
    "adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw_apex_fused", "adamw_torch_xla", "adamw_torch_npu_fused",
    "adamw_anyprecision", "paged_adamw_32bit", "paged_adamw",
)  # fmt: skip
_SHORT_ADAMW = (
    "adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit", "adamw_torch_8bit", "adamw_torch_4bit",
)  # fmt: skip
_FIGURES = {
    "loss": "loss",
    "eval_loss": "loss",
    "rewards/accuracies": "accuracy",
    "eval_rewards/accuracies": "accuracy",
}
_PAIRS = "A share of the run: give --pairs, how many train, or --steps of your own."


def training(draft: Draft) -> None:
    """Sets [training]."""
    given = draft.given
    if given.has("num_processes"):
        draft.processes = given["num_processes"]
    names = ("per_device_train_batch_size", "gradient_accumulation_steps")
    draft.set("training.batch_pairs", draft.batch, *names, *(("num_processes",) if given.has("num_processes") else ()))
    _passes(draft)
    draft.set("training.learning_rate", given["learning_rate"], "learning_rate")
    _optimizer(draft)
    _schedule(draft)
    draft.set("training.gradient_clip", given["max_grad_norm"], "max_grad_norm")
    name = "activation_checkpointing" if given.has("activation_checkpointing") else "gradient_checkpointing"
    draft.set("training.activation_checkpointing", given[name], name)
    if given["torch_compile"]:
        draft.set("training.compile", True, "torch_compile")
    if given["full_determinism"]:
        draft.set("training.deterministic", True, "full_determinism")
    _evaluation(draft)


def _passes(draft: Draft) -> None:
    given = draft.given
    epochs = given["num_train_epochs"]
    if given["max_steps"] > 0:
        draft.set("training.max_steps", given["max_steps"], "max_steps")
    elif epochs == int(epochs):
        draft.set("training.epochs", int(epochs), "num_train_epochs")
    elif draft.steps is not None:
        draft.set("training.max_steps", draft.steps, "num_train_epochs")
    else:
        draft.set("training.epochs", math.ceil(epochs), "num_train_epochs")
        draft.remark("lost", "num_train_epochs", "A part of a pass is a number of steps: give --pairs.")


def _optimizer(draft: Draft) -> None:
    given = draft.given
    name = str(given["optim"]).rpartition(".")[2].lower()
    ours = "rmsprop" if name == "rmsprop" else "adamw"
    draft.set("training.optimizer", ours, "optim")
    if name in _SHORT_ADAMW:
        draft.remark("differs", "optim", "Its moments are float32 here, and take the memory of that.")
    elif name not in (*_ADAMW, "rmsprop"):
        draft.remark("lost", "optim", "adamw stands in for it.")
    if given["weight_decay"] and ours == "rmsprop":
        draft.remark("lost", "weight_decay", "rmsprop has none.")
        return
    draft.set("training.weight_decay", given["weight_decay"], "weight_decay")
    if given["weight_decay"]:
        draft.remark("differs", "weight_decay", "Of all weights here; transformers leaves biases and norms out.")


def _schedule(draft: Draft) -> None:
    given = draft.given
    name = str(given["lr_scheduler_type"]).rpartition(".")[2].lower()
    ours = _SCHEDULES.get(name)
    if ours is None:
        ours = _NEAR.get(name, "cosine")
        draft.remark("lost", "lr_scheduler_type", f"{ours} stands in for it.")
    draft.set("training.schedule", ours, "lr_scheduler_type")
    argument = "warmup_steps" if given["warmup_steps"] > 0 or not given["warmup_ratio"] else "warmup_ratio"
    asked = given[argument]
    if not asked:
        return
    if name == "constant":
        draft.remark("moot", argument, "The schedule `constant` has no warm-up in transformers.")
        return
    steps = draft.share(asked)
    if steps is None:
        draft.remark("lost", argument, "A share of the steps is a number of them: give --pairs.")
        return
    if draft.steps is not None and steps > draft.steps:
        draft.remark("lost", argument, "The warm-up would be longer than the run, and ends with it.")
        steps = draft.steps
    draft.set("training.warmup_steps", steps, argument)


def _evaluation(draft: Draft) -> None:
    given = draft.given
    strategy = str(given["eval_strategy"]).rpartition(".")[2].lower()
    if strategy == "no":
        draft.set("training.eval_every", 0, "eval_strategy")
    elif strategy == "epoch":
        _every(draft, "training.eval_every", draft.pass_steps, "eval_strategy")
    else:
        argument = "eval_steps" if given["eval_steps"] else "logging_steps"
        _every(draft, "training.eval_every", draft.share(given[argument]), "eval_strategy", argument)


def _every(draft: Draft, option: str, steps: int | None, *names: str) -> bool:
    """Sets an option to a number of steps, where that is known; `names` ends with the argument that says it."""
    if steps is None:
        draft.remark("lost", names[-1], f"How many steps that is follows from --pairs; {option} has its own default.")
        return False
    draft.set(option, steps, *names)
    return True


def checkpoints(draft: Draft) -> None:
    """Sets [checkpoint], as far as it is asked for: TRL's default of every 500 steps is nobody's wish."""
    given = draft.given
    strategy = str(given["save_strategy"]).rpartition(".")[2].lower()
    if strategy == "no":
        draft.set("checkpoint.every_steps", 0, "save_strategy")
        draft.set("checkpoint.every_minutes", 0.0, "save_strategy")
    elif strategy == "epoch":
        if _every(draft, "checkpoint.every_steps", draft.pass_steps, "save_strategy"):
            draft.set("checkpoint.every_minutes", 0.0, "save_strategy")
    elif strategy == "best":
        draft.remark("lost", "save_strategy", "The best one (checkpoint.best) is kept of those that are taken.")
    elif given.has("save_steps") and _every(
        draft, "checkpoint.every_steps", draft.share(given["save_steps"]), "save_steps"
    ):
        draft.set("checkpoint.every_minutes", 0.0, "save_steps")
    if given["save_total_limit"] is not None and given["save_total_limit"] > 0:
        draft.set("checkpoint.keep", given["save_total_limit"], "save_total_limit")
    if given.has("metric_for_best_model"):
        figure = _FIGURES.get(given["metric_for_best_model"])
        if figure is None:
            draft.remark("lost", "metric_for_best_model", "Checkpoints are compared by held-out loss or accuracy.")
        else:
            draft.set("checkpoint.best", figure, "metric_for_best_model")
