"""The arguments of a TRL script as a file gives them, checked and by their present names."""

from __future__ import annotations

import difflib
import json
import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from tiltlm.config.from_trl import of_dpo, of_earlier, of_scripts, of_training
from tiltlm.config.from_trl.argument import Argument, Kind
from tiltlm.errors import ConfigError
from tiltlm.text.masking import masked

ARGUMENTS: Mapping[str, Argument] = MappingProxyType(
    {one.name: one for one in (*of_training.ARGUMENTS, *of_dpo.ARGUMENTS, *of_scripts.ARGUMENTS, *of_earlier.ARGUMENTS)}
)
"""Every argument that is known, by its name."""

OF_LOADING = {
    "dtype": "dtype",
    "torch_dtype": "dtype",
    "revision": "model_revision",
    "attn_implementation": "attn_implementation",
    "trust_remote_code": "trust_remote_code",
}
"""Keys of model_init_kwargs that are arguments of the script as well."""
_WITHOUT_EFFECT = ("use_cache", "device_map", "low_cpu_mem_usage", "use_kernels")
_NOTHING = frozenset({"none", "null", "~", ""})
_YES, _NO = frozenset({"true", "yes", "y", "t", "on", "1"}), frozenset({"false", "no", "n", "f", "off", "0"})
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxstring, _SHORT.maxother = 3, 6, 8, 80, 80


@dataclass(frozen=True, slots=True)
class Given:
    """Arguments that a file gives.

    values: those that are known, by their present names, each of its kind. unknown: the others, as they are.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    unknown: Mapping[str, object] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        """What an argument comes to: as given, else, or where it is null, TRL's default."""
        value = self.values.get(name)
        return ARGUMENTS[name].default if value is None else value

    def has(self, name: str) -> bool:
        """Whether an argument is given, and is not null."""
        return self.values.get(name) is not None

    def shown(self, name: str) -> str:
        """An argument with its value, on one line; that of a token is nobody's business."""
        return name if name.endswith("_token") or name == "env" else f"{name} = {short(self[name])}"


def short(value: object) -> str:
    """A value on one line, its middle left out where it is long, without secrets."""
    return masked(_SHORT.repr(value))


def read_arguments(path: Path) -> Given:
    """The arguments in a file: YAML as `trl dpo --config` takes, or JSON such as a dump of TrainingArguments.

    Raises:
        ConfigError: the file cannot be read, holds no arguments, or one has an impossible value.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: give a script's arguments as YAML or JSON.") from error
    try:
        table = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        kind = "JSON" if path.suffix.lower() == ".json" else "YAML"
        raise ConfigError(f"{path} is not valid {kind}: {' '.join(str(error).split())}.") from error
    try:
        return given_by(table)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def given_by(table: object) -> Given:
    """The arguments in a table as YAML or JSON holds it.

    Raises:
        ConfigError: it holds no arguments, or one has an impossible value.
    """
    if not isinstance(table, Mapping) or not all(isinstance(name, str) for name in table):
        raise ConfigError("a script's arguments are a table: a line `name: value` for each.")
    table = {name.lstrip("-").replace("-", "_"): value for name, value in table.items()}
    known = {name: _of_kind(name, value) for name, value in table.items() if name in ARGUMENTS}
    unknown = {name: value for name, value in table.items() if name not in ARGUMENTS}
    if not known:
        if {"distributed_type", "compute_environment"} & set(table):
            raise ConfigError(
                "this is accelerate's launch configuration: give the script's arguments, and its num_processes as "
                "--processes."
            )
        raise ConfigError("none of its names is an argument of TRL.")
    for name, value in (known.get("model_init_kwargs") or {}).items():
        if name in OF_LOADING:  # the script lets them win over arguments of its own
            known[OF_LOADING[name]] = _of_kind(OF_LOADING[name], value)
        elif name not in _WITHOUT_EFFECT:
            unknown[f"model_init_kwargs.{name}"] = value
    return Given(_present(known), unknown)


def nearest_argument(name: str) -> str | None:
    """The argument that a name may be a misspelling of."""
    return next(iter(difflib.get_close_matches(name, ARGUMENTS, n=1, cutoff=0.8)), None)


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values under present names.

    Raises:
        ConfigError: an argument has different values under two of its names.
    """
    present = {name: value for name, value in values.items() if ARGUMENTS[name].now is None}
    for former, value in values.items():
        now = ARGUMENTS[former].now
        if now is None or value is None:
            continue
        value = _of_kind(now, value)
        if present.get(now) not in (None, ARGUMENTS[now].default, value):
            raise ConfigError(f"{former} and {now} are one argument, and differ: remove one of them.")
        present[now] = value
    return present


def _of_kind(name: str, value: object) -> Any:
    """A value as its argument takes it: TRL reads `5e-7`, text in YAML, as a number.

    Raises:
        ConfigError: it is none.
    """
    kind = ARGUMENTS[name].kind
    if isinstance(value, str) and value.strip().lower() in _NOTHING and kind not in ("text", "texts"):
        return None
    if value is None or (value in ("None", "null") and kind == "text"):
        return None
    try:
        return _READ[kind](value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{name} is {_WORDS[kind]}, not {short(value)}.") from error


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _whole(value: object) -> int:
    number = int(value) if isinstance(value, int) and not isinstance(value, bool) else _number(value)
    if number != int(number):
        raise ValueError
    return int(number)


def _switch(value: object) -> bool:
    word = str(value).strip().lower() if isinstance(value, bool | int | str) else ""
    if word not in _YES | _NO:
        raise ValueError
    return word in _YES


def _text(value: object) -> str:
    if isinstance(value, bool):  # YAML reads `no` as false
        return "yes" if value else "no"
    if not isinstance(value, str | int | float):
        raise TypeError
    str(value).encode()  # half of a surrogate pair cannot be written
    return str(value)


def _texts(value: object) -> list[str]:
    return [_text(one) for one in value] if isinstance(value, list | tuple) else [_text(value)]


def _numbers(value: object) -> list[float]:
    return [_number(one) for one in value] if isinstance(value, list | tuple) else [_number(value)]


def _table(value: object) -> dict[str, object]:
    if isinstance(value, str):
        value = json.loads(value)
    if not isinstance(value, Mapping):
        raise TypeError
    return {str(name): one for name, one in value.items()}


_READ: dict[Kind, Callable[[object], Any]] = {
    "number": _number,
    "whole": _whole,
    "switch": _switch,
    "text": _text,
    "texts": _texts,
    "numbers": _numbers,
    "table": _table,
    "any": lambda value: value,
}
_WORDS: dict[Kind, str] = {
    "number": "a number",
    "whole": "a whole number",
    "switch": "true or false",
    "text": "text",
    "texts": "a list of texts",
    "numbers": "a list of numbers",
    "table": "a table",
    "any": "anything",
}
