"""Which objective TRL's arguments ask for, and with which settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tiltlm.config.from_trl.draft import Draft
from tiltlm.config.from_trl.given_arguments import ARGUMENTS
from tiltlm.errors import ConfigError
from tiltlm.objectives import OBJECTIVES

OF_TRL = (
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
)  # fmt: skip
"""Losses of TRL's DPOTrainer; ours have the same names."""
OF_OTHER_TRAINERS = ("simpo", "kto")
DIVERGENCES = {
    "reverse_kl": "reverse_kl",
    "forward_kl": "forward_kl",
    "js_divergence": "js",
    "alpha_divergence": "alpha",
}
_MIXES: dict[tuple[str, ...], Callable[[list[float]], tuple[str, dict[str, float]]]] = {
    ("sft", "sigmoid"): lambda weight: ("rpo", {"nll_weight": weight[0] / weight[1]}),
    ("bco_pair", "sft", "sigmoid"): lambda weight: (
        "mpo",
        {"preference_weight": weight[2], "quality_weight": weight[0], "nll_weight": weight[1]},
    ),
}
"""Mixes that have a name here, by their losses in alphabetical order; from weights in that order to its settings."""
DIFFERS = {
    "sppo_hard": "TRL's loss is twice ours, which is the paper's.",
    "aot": "TRL sorts the pairs of a micro-batch; here they are those of the whole step.",
    "aot_unpaired": "TRL sorts the answers of a micro-batch; here they are those of the whole step.",
    "kto": "TRL takes z over a micro-batch of a process; here it is over the whole step.",
    "sft": "TRL divides by the tokens of a micro-batch; here it is by those of the whole step.",
    "rpo": "TRL divides the imitation by the tokens of a micro-batch; here each answer's is by its own.",
    "mpo": "TRL has no running mean of rewards in BCO's part, and divides the imitation by a micro-batch's tokens.",
    "wpo": "TRL does not bound the product of a pair's weights by 1.",
}
"""What is another with us than with TRL under one name; docs/peers.md has it in figures."""
_READS_SMOOTHING = ("robust", "exo_pair", "aot", "aot_unpaired")
_READS_NO_BETA = ("sft",)


def loss(draft: Draft) -> None:
    """Sets [loss].

    Raises:
        ConfigError: TRL has no such loss.
    """
    given = draft.given
    name, settings = _mix(draft)
    if name not in _READS_NO_BETA:
        settings["beta"] = (given["beta"], "beta")
    _smoothing(draft, name, settings)
    if name == "discopop":
        settings["tau"] = (given["discopop_tau"], "discopop_tau")
    if name == "kto":
        for weight in ("desirable_weight", "undesirable_weight"):
            settings[weight] = (given[weight], weight)
    if name == "simpo" and given["beta"] > 0:
        settings["gamma_beta_ratio"] = (given["simpo_gamma"] / given["beta"], "simpo_gamma")
        if given["cpo_alpha"] != 0:
            draft.remark("lost", "cpo_alpha", "SimPO has no term of imitation: TRL adds it unless cpo_alpha is 0.")
        draft.seen.add("cpo_alpha")
    name, *by = _variant(draft, name, settings)
    _divergence(draft, name, settings)
    _write(draft, name, settings, *by)


def _mix(draft: Draft) -> tuple[str, dict[str, tuple[Any, str]]]:
    """The objective that one loss or several with weights are, with its settings so far."""
    given = draft.given
    kinds = list(given["loss_type"] or ["sigmoid"])
    for kind in kinds:
        if kind not in (*OF_TRL, *OF_OTHER_TRAINERS):
            raise ConfigError(f"loss_type: TRL's DPOTrainer has no loss `{kind}`. It has: {', '.join(OF_TRL)}.")
    weights = given["loss_weights"] or [1.0] * len(kinds)
    if len(weights) != len(kinds):
        raise ConfigError(f"loss_weights has {len(weights)} weights for {len(kinds)} losses.")
    parts = sorted(zip(kinds, weights, strict=True))
    if given["rpo_alpha"] is not None and kinds == ["sigmoid"]:
        return "rpo", {"nll_weight": (given["rpo_alpha"], "rpo_alpha")}
    if len(parts) == 1:
        if weights[0] != 1:
            draft.remark("lost", "loss_weights", "The weight of a single loss is no setting here: AdamW undoes it.")
        return kinds[0], {}
    mix = _MIXES.get(tuple(kind for kind, _ in parts))
    ordered = [weight for _, weight in parts]
    if mix is not None and min(ordered) > 0:
        name, settings = mix(ordered)
        if name in OBJECTIVES:
            if name == "rpo" and ordered[1] != 1:
                draft.remark("differs", "loss_weights", f"The whole is divided by {ordered[1]:g}, sigmoid's weight.")
            return name, {option: (value, "loss_weights") for option, value in settings.items()}
    first = max(parts, key=lambda part: part[1])[0]
    draft.remark(
        "lost",
        "loss_type",
        f"{first} stands in for this mix: write the mix as an objective of your own, in a file.",
    )
    if given.has("loss_weights"):
        draft.remark("lost", "loss_weights", "They belong to the mix.")
    return first, {}


def _smoothing(draft: Draft, name: str, settings: dict[str, tuple[Any, str]]) -> None:
    smoothing = draft.given["label_smoothing"]
    if name == "exo_pair" and smoothing == 0:
        draft.remark("lost", "label_smoothing", "TRL refuses 0 with exo_pair; the default here is the paper's 0.001.")
    elif name in _READS_SMOOTHING:
        settings["label_smoothing"] = (smoothing, "label_smoothing")
    elif smoothing and name in ("sigmoid", "simpo"):
        says = "TRL's loss does not read it" if name == "sigmoid" else "SimPO's has none"
        draft.remark("lost", "label_smoothing", f"{says}; conservative DPO is loss.label_smoothing with sigmoid.")


def _variant(draft: Draft, name: str, settings: dict[str, tuple[Any, str]]) -> tuple[str, ...]:
    """The objective that an argument turns sigmoid into, and that argument; the objective itself where none does.

    For other losses, and beside one another, such arguments are lost.
    """
    given = draft.given
    variants: dict[str, tuple[str, dict[str, tuple[Any, str]]]] = {}
    if given["ld_alpha"] is not None:
        variants["ld_alpha"] = ("ld_dpo", {"alpha": (given["ld_alpha"], "ld_alpha")})
    if given["use_weighting"]:
        variants["use_weighting"] = ("wpo", {})
    if given["sync_ref_model"]:
        moving = {
            "alpha": (given["ref_model_mixup_alpha"], "ref_model_mixup_alpha"),
            "update_every": (given["ref_model_sync_steps"], "ref_model_sync_steps"),
        }
        variants["sync_ref_model"] = ("tr_dpo", moving)
    chosen: tuple[str, ...] = (name,)
    for argument, (variant, its) in variants.items():
        if variant not in OBJECTIVES:
            draft.remark("lost", argument, f"This version of tiltlm has no objective {variant}.")
        elif chosen[0] != "sigmoid":
            draft.remark("lost", argument, f"It is {variant} here, an objective of its own: not with {chosen[0]}.")
        else:
            chosen = (variant, argument)
            settings.update(its)
    return chosen


def _divergence(draft: Draft, name: str, settings: dict[str, tuple[Any, str]]) -> None:
    kind = draft.given["f_divergence_type"]
    kind = str(kind).rpartition(".")[2].lower()  # a dump of an earlier version has FDivergenceType.REVERSE_KL
    if kind not in DIVERGENCES:
        raise ConfigError(f"f_divergence_type cannot be `{kind}`; it is one of {', '.join(DIVERGENCES)}.")
    if kind == "reverse_kl":
        return
    if "divergence" not in _settings(name):
        draft.remark("lost", "f_divergence_type", f"Not with {name}: it is a setting of losses of reward margins.")
        return
    if kind == "alpha_divergence":
        # TRL: (t^(c-1) - 1)/(c-1) with t = pi/pi_ref, and the reverse KL where c is 1; ours: (1 - t^-a)/a.
        alpha = 1 - draft.given["f_alpha_divergence_coef"]
        if abs(alpha) < 1e-6:
            draft.seen.update(("f_divergence_type", "f_alpha_divergence_coef"))
            return
        if not 0 < alpha < 1:
            draft.remark("lost", "f_alpha_divergence_coef", "Only from 0 to 1 is it a divergence between the two KLs.")
            return
        settings["divergence_alpha"] = (alpha, "f_alpha_divergence_coef")
    settings["divergence"] = (DIVERGENCES[kind], "f_divergence_type")


def _write(draft: Draft, name: str, settings: dict[str, tuple[Any, str]], *by: str) -> None:
    """Sets the name, which `loss_type` and the arguments `by` decide, and those settings that the objective has."""
    if name not in OBJECTIVES:
        draft.remark("lost", "loss_type", f"This version of tiltlm has no objective {name}: sigmoid stands in for it.")
        name = "sigmoid"
    draft.set("loss.name", name, "loss_type", *by)
    if name in DIFFERS:
        draft.remark("differs", "loss_type", DIFFERS[name])
    for option, (value, argument) in settings.items():
        if option in _settings(name):
            draft.set(f"loss.{option}", value, argument)
        elif ARGUMENTS[argument].asks(value):
            draft.remark("lost", argument, f"The objective {name} has no setting for it.")


def _settings(name: str) -> list[str]:
    if name not in OBJECTIVES:
        return []
    return [option.name for option in dataclasses.fields(OBJECTIVES[name].settings)]
