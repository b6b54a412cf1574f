"""Adapters and quantisation: peft's arguments and bitsandbytes', as TRL's ModelConfig has them."""

from __future__ import annotations

from tiltlm.config.from_trl.draft import Draft
from tiltlm.config.from_trl.given_arguments import ARGUMENTS
from tiltlm.config.from_trl.of_scripts import MODEL_ARGUMENTS

_QUANTISED = ("load_in_4bit", "load_in_8bit")
_OF_ADAPTERS = tuple(one.name for one in MODEL_ARGUMENTS if one.name.startswith(("lora_", "use_rslora", "use_dora")))
_PATTERN = frozenset("*+?^$|()[]\\")


def adapter(draft: Draft) -> None:
    """Sets [adapter], where one is asked for."""
    given = draft.given
    if not given["use_peft"]:
        for name in _QUANTISED:
            if given[name]:
                draft.remark("lost", name, "A quantised model is trained by adapters alone, which use_peft asks for.")
        for name in _OF_ADAPTERS:
            if name in given.values and ARGUMENTS[name].asks(given[name]):
                draft.remark("moot", name, "Without effect where use_peft is not true, in TRL too.")
        return
    kind = "dora" if given["use_dora"] else "rslora" if given["use_rslora"] else "lora"
    draft.set("adapter.kind", kind, "use_peft", *(name for name in ("use_dora", "use_rslora") if given[name]))
    if given["use_dora"] and given["use_rslora"]:
        draft.remark("lost", "use_rslora", "DoRA divides by the rank, not by its root.")
    draft.set("adapter.rank", given["lora_r"], "lora_r")
    draft.set("adapter.alpha", float(given["lora_alpha"]), "lora_alpha")
    _targets(draft)
    _quantisation(draft)
    if given["lora_dropout"]:
        draft.remark("moot" if given["disable_dropout"] else "lost", "lora_dropout", ARGUMENTS["lora_dropout"].says)


def _targets(draft: Draft) -> None:
    targets = draft.given["lora_target_modules"]
    if not targets:
        draft.remark("differs", "lora_target_modules", "peft's choice for the model there, all linear layers here.")
    elif any(_PATTERN & set(target) for target in targets):
        draft.remark("lost", "lora_target_modules", "Layers are named by the ends of their names, not by a pattern.")
    else:
        draft.set("adapter.targets", list(targets), "lora_target_modules")


def _quantisation(draft: Draft) -> None:
    given = draft.given
    if given["load_in_8bit"] and given["load_in_4bit"]:
        draft.remark("lost", "load_in_4bit", "Eight bits and four at once are refused by TRL; load_in_8bit is taken.")
    if given["load_in_8bit"]:
        draft.set("adapter.quantise", "int8", "load_in_8bit")
    elif given["load_in_4bit"]:
        draft.set("adapter.quantise", "nf4", "load_in_4bit")
        if given["bnb_4bit_quant_type"] != "nf4":
            draft.remark("lost", "bnb_4bit_quant_type", "Four bits are nf4.")
        if not given["use_bnb_nested_quant"]:
            draft.remark("differs", "use_bnb_nested_quant", "nf4 is twice quantised here.")
        draft.seen.add("use_bnb_nested_quant")
