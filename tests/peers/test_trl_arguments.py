"""Every argument of the installed TRL is known, with its default."""

from __future__ import annotations

import dataclasses
import importlib
from enum import Enum
from typing import Any

import pytest

from tiltlm.config.from_trl import of_dpo, of_scripts, of_training
from tiltlm.config.from_trl.argument import TRL, Argument
from tiltlm.config.from_trl.loss_translation import OF_TRL

trl = pytest.importorskip("trl", reason="an environment of scripts/make_peers_environment.py has it")

OF_KIND: dict[str, tuple[Argument, ...]] = {
    "DPOConfig": (*of_training.ARGUMENTS, *of_dpo.ARGUMENTS),
    "ScriptArguments": of_scripts.SCRIPT_ARGUMENTS,
    "ModelConfig": of_scripts.MODEL_ARGUMENTS,
    "DatasetMixtureConfig": of_scripts.MIXTURE_ARGUMENTS,
}


def default(field: dataclasses.Field[Any]) -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default.value if isinstance(field.default, Enum) else field.default


def test_the_tables_are_of_the_installed_version() -> None:
    assert trl.__version__ == TRL


@pytest.mark.parametrize("kind", OF_KIND)
def test_none_is_forgotten_and_none_is_made_up(kind: str) -> None:
    there = {field.name: default(field) for field in dataclasses.fields(getattr(trl, kind)) if field.init}
    known = {argument.name: argument.default for argument in OF_KIND[kind]}
    assert known == there


def test_every_loss_is_known() -> None:
    text = (
        importlib.import_module("trl.trainer.dpo_config").DPOConfig.__dataclass_fields__["loss_type"].metadata["help"]
    )
    assert all(f"`'{name}'`" in text for name in OF_TRL)
    assert text.count("`'") == len(OF_TRL)
