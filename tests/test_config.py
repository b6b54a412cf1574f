"""Settings: what is refused and how it is said, files and flags together, and the help."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from operator import attrgetter, methodcaller
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given as given_any
from hypothesis import settings
from hypothesis import strategies as st
from pydantic import Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from tiltlm import __version__, config, demo
from tiltlm.cli import commands, main
from tiltlm.cli.command_line import parse, parse_config
from tiltlm.cli.sweep_words import parse_sweep
from tiltlm.config import Config, DataConfig, LossConfig, config_from_dict, load_config, settings_table
from tiltlm.config.column_names import COLUMNS
from tiltlm.config.declaring import limits_of
from tiltlm.config.help_texts import option_texts
from tiltlm.config.loss_config import loss_section, readers_of
from tiltlm.config.tracker_names import TRACKERS
from tiltlm.config.validation import validate
from tiltlm.errors import ConfigError, TiltlmError
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import SETTINGS, LossOutput, Needs, Objective, Scored
from tiltlm.runs.schema import SCHEMA
from tiltlm.text.type_words import alternatives

SECTIONS = get_type_hints(Config)
HINTS = {(section, option): hint for section, kind in SECTIONS.items() for option, hint in get_type_hints(kind).items()}
SHIPPED = [*sorted((Path(__file__).parents[1] / "configs").glob("*.toml")), demo.CONFIG]


def flag(section: str, option: str) -> str:
    return f"--{section}.{option.replace('_', '-')}"


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(table: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(config_from_dict(table))
    return str(caught.value)


# Unknown names


@pytest.mark.parametrize(("section", "option"), HINTS)
def test_a_misspelt_option_gets_the_nearest_name(section: str, option: str) -> None:
    typos = {option[:-1], option[:1] + option, option.replace("_", "-"), option.upper().lower().replace("_", "")}
    for typo in typos - set(get_type_hints(SECTIONS[section])):
        message = refusal({section: {typo: 1}})
        assert message == f"unknown option in [{section}]: `{typo}`. Did you mean `{option}`?"


def test_an_option_like_no_other_gets_the_list_of_all() -> None:
    message = refusal({"hub": {"zzzzzz": 1}})
    assert message == "unknown option in [hub]: `zzzzzz`. There are: folder."


def test_a_misspelt_section_gets_the_nearest_name() -> None:
    assert refusal({"trainning": {}}) == "unknown section: `trainning`. Did you mean `training`?"
    # An option outside of its section is an unknown section, too.
    assert refusal({"beta": 0.1}).startswith("unknown section: `beta`.")


def test_a_section_takes_options_below_it() -> None:
    assert "[loss]" in refusal({"loss": 0.1})


def test_a_file_is_named_in_what_is_wrong_with_it(tmp_path: Path) -> None:
    path = written(tmp_path, "[loss]\nbetta = 0.2\n")
    with pytest.raises(ConfigError, match=r"settings\.toml: unknown option in \[loss\]: `betta`\. Did you mean `beta`"):
        load_config(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigError, match=r"cannot read the configuration .*(No such file|Is a directory)"):
            load_config(path)
    with pytest.raises(ConfigError, match=r"settings\.toml is not valid TOML: .*line 2"):
        load_config(written(tmp_path, "[loss]\nbeta 0.1\n"))
    (tmp_path / "latin.toml").write_bytes('[run]\nname = "é"\n'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.toml is not valid TOML: .*utf-8"):
        load_config(tmp_path / "latin.toml")


# Wrong types


def wrong_values(hint: Any) -> list[object]:
    if get_origin(hint) is Literal:
        return ["no such choice", 7, True, ["auto"]]
    if get_origin(hint) is tuple:
        return ["text", 3, [1], {}]
    if get_origin(hint) is dict:
        return ["text", 3, ["a"], {"a": 1}]
    allowed = get_args(hint) or (hint,)
    values: list[object] = ["text", 3, 1.5, True, ["text"], {"a": 1}]
    fits = (*allowed, int) if float in allowed else allowed
    return [value for value in values if type(value) not in fits]


@pytest.mark.parametrize(("section", "option"), HINTS)
def test_a_value_of_another_type_is_refused(section: str, option: str) -> None:
    wrong = wrong_values(HINTS[section, option])
    assert len(wrong) >= 4
    for value in wrong:
        assert refusal({section: {option: value}}).startswith(f"{section}.{option} ")


def test_what_a_type_error_says() -> None:
    assert refusal({"loss": {"beta": "0.1"}}) == "loss.beta is a number or unset, not '0.1'."
    assert refusal({"training": {"learning_rate": "1"}}) == "training.learning_rate is a number, not '1'."
    assert refusal({"training": {"epochs": 1.5}}) == "training.epochs is a whole number, not 1.5."
    assert refusal({"training": {"max_steps": "all"}}) == "training.max_steps is a whole number or unset, not 'all'."
    assert refusal({"run": {"overwrite": 1}}) == "run.overwrite is true or false, not 1."
    assert refusal({"comparison": {"extra_prompts": "a"}}) == "comparison.extra_prompts is a list of strings, not 'a'."
    choice = refusal({"loss": {"name": "sigmod"}})
    assert choice == f"loss.name cannot be `sigmod`; it is one of {', '.join(OBJECTIVES)}. Did you mean `sigmoid`?"


def test_a_whole_number_will_do_for_a_number() -> None:
    beta = config_from_dict({"loss": {"beta": 1}}).loss.beta
    assert beta == 1.0 and type(beta) is float


# Options that have no effect, and values out of range


@pytest.mark.parametrize(
    ("table", "option", "because"),
    [
        ({"loss": {"name": "ipo", "label_smoothing": 0.1}}, "loss.label_smoothing", "`ipo`"),
        ({"loss": {"name": "simpo"}, "model": {"reference": "gpt2"}}, "model.reference", "`simpo`"),
        ({"training": {"optimizer": "rmsprop", "weight_decay": 0.1}}, "training.weight_decay", "`rmsprop`"),
        ({"data": {"eval": "held.jsonl", "eval_fraction": 0.2}}, "data.eval_fraction", "data.eval is given"),
    ],
)
def test_an_option_without_effect_is_refused(table: dict[str, Any], option: str, because: str) -> None:
    message = refusal(table)
    assert message.startswith(f"{option} has no effect") and because in message and "remove" in message


def test_the_same_options_are_fine_where_they_have_an_effect() -> None:
    for table in (
        {"loss": {"label_smoothing": 0.1}},
        {"training": {"weight_decay": 0.1}},
        {"data": {"eval_fraction": 0.2}},
        {"data": {"eval": "held.jsonl"}},
        {"loss": {"name": "ipo"}, "training": {"optimizer": "rmsprop"}},
    ):
        validate(config_from_dict(table))


RANGED = {
    (section, option): limits
    for section, kind in SECTIONS.items()
    for option, hint in get_type_hints(kind, include_extras=True).items()
    if (limits := limits_of(hint))
}


def is_float(section: str, option: str) -> bool:
    return float in alternatives(HINTS[section, option])


def outside(section: str, option: str) -> list[float]:
    """Values beyond each limit of an option, the limit itself where it is none of the range."""
    limits, step = RANGED[section, option], 0.25 if is_float(section, option) else 1
    values: list[float] = [limits[limit] for limit in ("gt", "lt") if limit in limits]
    values += [limits[limit] - step for limit in ("gt", "ge") if limit in limits]
    values += [limits[limit] + step for limit in ("lt", "le") if limit in limits]
    return values + ([math.nan, math.inf, -math.inf] if is_float(section, option) else [])


def beside(section: str, option: str) -> dict[str, Any]:
    """What an option needs beside it to have an effect."""
    needed = {"divergence": "alpha"} if option == "divergence_alpha" else {}
    if section == "adapter":
        return {"kind": "lora"}
    if section == "rounds":
        return {} if option == "count" else {"count": 1, "judge": "vader"}
    return {"name": readers_of(option, OBJECTIVES)[0], **needed} if section == "loss" else {}


def from_python(section: str, option: str, value: float, folder: Path) -> Config:
    return validate(Config(**{section: SECTIONS[section](**beside(section, option), **{option: value})}))


def from_toml(section: str, option: str, value: float, folder: Path) -> Config:
    options = {name: json.dumps(text) for name, text in beside(section, option).items()} | {option: repr(value)}
    lines = [f"[{section}]", *(f"{name} = {text}" for name, text in options.items())]
    return validate(load_config(written(folder, "\n".join(lines))))


def from_json(section: str, option: str, value: float, folder: Path) -> Config:
    path = folder / "config.json"
    path.write_text(json.dumps({"schema": 1, section: {**beside(section, option), option: value}}))
    return parse_config([str(path)])


def from_flags(section: str, option: str, value: float, folder: Path) -> Config:
    words = [f"{flag(section, name)}={text}" for name, text in beside(section, option).items()]
    return parse_config([*words, "--data.train", "x", f"{flag(section, option)}={value!r}"])


WAYS = [from_python, from_toml, from_json, from_flags]


@pytest.mark.parametrize("given", WAYS)
@pytest.mark.parametrize(("section", "option"), RANGED)
def test_a_value_out_of_range_is_refused(
    section: str, option: str, given: Callable[[str, str, float, Path], Config], tmp_path: Path
) -> None:
    values = outside(section, option)
    assert len(values) >= 1
    for value in values:
        with pytest.raises(ConfigError) as caught:
            given(section, option, value, tmp_path)
        message = str(caught.value)
        assert f"{section}.{option} must be " in message, value
        # The whole range is said, and the value.
        limits = [value for limit, value in RANGED[section, option].items()]
        assert all(re.search(rf"\b{re.escape(str(limit))}\b", message) for limit in limits), message
        assert message.endswith(f"not {value if isinstance(value, float) else int(value)!r}.") or "not " in message


@pytest.mark.parametrize("given", WAYS)
@pytest.mark.parametrize(("section", "option"), RANGED)
def test_the_nearest_value_within_the_range_is_taken(
    section: str, option: str, given: Callable[[str, str, float, Path], Config], tmp_path: Path
) -> None:
    limits, whole = RANGED[section, option], not is_float(section, option)
    lowest = limits.get("ge", limits.get("gt", 0) + (1 if whole else 1e-9))
    lowest = int(lowest) if whole else float(lowest)
    if (section, option) in {("comparison", "samples"), ("data", "max_length")}:  # what else they touch is set too
        lowest = 2
    options = getattr(given(section, option, lowest, tmp_path), section)
    found = getattr(options.settings if section == "loss" else options, option)
    assert found == lowest and type(found) is type(lowest)


def test_every_number_has_a_range() -> None:
    """One, or that of each objective which reads it."""
    numbers = {place for place, hint in HINTS.items() if {int, float} & set(alternatives(hint))}
    assert numbers and numbers >= set(RANGED)
    for section, option in numbers - set(RANGED):
        assert section == "loss"
        ranges = [limits_of(own_hints(name)[option]) for name in readers_of(option, OBJECTIVES)]
        assert all(ranges) and ranges.count(ranges[0]) < len(ranges)


def own_hints(name: str) -> dict[str, Any]:
    """The settings of an objective with their types and ranges."""
    return get_type_hints(OBJECTIVES[name].settings, include_extras=True)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\nb", "a\x1b", "a\0", "é" * 101])
def test_a_name_that_no_folder_can_have_is_refused(name: str) -> None:
    assert refusal({"run": {"name": name}}).startswith("run.name must be a folder name, not ")


def test_the_prompt_must_leave_room_for_the_answer() -> None:
    for longest in (512, 513):
        message = refusal({"data": {"max_prompt_length": longest}})
        assert message == f"data.max_prompt_length ({longest}) must be below data.max_length (512)."


def test_what_is_given_in_python_is_checked_like_what_is_written() -> None:
    with pytest.raises(ConfigError, match=r"`lr`\. Did you mean `training.learning_rate`"):
        config.TrainingConfig(lr=1e-5)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"training\.epochs is a whole number, not True\."):
        config.TrainingConfig(True)
    with pytest.raises(ConfigError, match=r"loss\.name was given twice\."):
        LossConfig("ipo", name="sigmoid")  # type: ignore[misc]
    with pytest.raises(ConfigError, match=r"training is a table, not 5\."):
        Config(training=5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"training\.epochs must be above 0, not 0\."):
        dataclasses.replace(config.TrainingConfig(), epochs=0)
    with pytest.raises(ConfigError, match=r"\[hub\] has fewer options than values were given\. There are: folder\."):
        config.HubConfig("a", "b")  # type: ignore[call-arg]


def test_the_borders_of_the_ranges_are_fine() -> None:
    zeros = {"weight_decay": 0, "warmup_steps": 0, "gradient_clip": 0, "eval_every": 0}
    validate(config_from_dict({"training": zeros, "comparison": {"prompts": 0, "samples": 0}}))
    validate(config_from_dict({"data": {"max_length": 2, "max_prompt_length": 1}, "loss": {"label_smoothing": 0.499}}))


def test_the_first_words_of_a_name_are_enough_for_a_suggestion() -> None:
    assert (
        refusal({"training": {"gradient": 1}})
        == "unknown option in [training]: `gradient`. Did you mean `gradient_clip`?"
    )
    assert refusal({"loss": {"gamma_beta": 1}}).endswith("Did you mean `gamma_beta_ratio`?")


# The settings of objectives


@pydantic_dataclass(frozen=True, config=SETTINGS)
class WarmSettings:
    """Settings of a made-up objective: one that others have with another default and range, and two of its own."""

    beta: Annotated[float, Field(gt=0, le=10)] = 2.0
    """Heat of the loss."""
    kind: Literal["soft", "hard"] = "soft"
    """How it melts."""
    window: Annotated[int, Field(ge=1)] = 8
    """Units that it looks back on"""

    def __post_init__(self) -> None:
        if self.kind == "hard" and self.beta > 5:
            raise ValueError("is hard and hot at once: lower loss.beta, or set loss.kind to `soft`.")


def no_loss(scored: Scored, settings: object) -> LossOutput:
    raise NotImplementedError


WARM = {**OBJECTIVES, "warm": Objective("warm", no_loss, WarmSettings, Needs(reference=False), "warms")}
WarmConfig: Any = loss_section(WARM)


def test_an_objective_brings_its_settings_along() -> None:
    assert WarmConfig("warm", window=3).settings == WarmSettings(window=3)
    assert WarmConfig("warm").objective is WARM["warm"]
    assert WarmConfig() == WarmConfig("sigmoid") and WarmConfig().settings == OBJECTIVES["sigmoid"].settings()
    texts = option_texts(WarmConfig)
    assert texts["window"] == "Of `warm` (8): Units that it looks back on."
    assert "`warm`" in texts["beta"] and "Heat" not in texts["beta"], "many objectives read beta"


def test_the_help_stays_short_however_many_objectives_there_are() -> None:
    assert max(len(text) for text in option_texts(LossConfig).values()) < 600
    assert "most (0.1)" in option_texts(LossConfig)["beta"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "warn"}, "loss.name cannot be `warn`; it is one of .*, warm. Did you mean `warm`?"),
        ({"name": "warm", "kind": "sofd"}, "loss.kind cannot be `sofd`; it is one of soft, hard. Did you mean `soft`?"),
        ({"name": "warm", "beta": 11.0}, "loss.beta must be above 0 and at most 10, not 11.0."),
        ({"name": "warm", "beta": math.nan}, "loss.beta must be finite, not nan."),
        ({"name": "warm", "window": 0}, "loss.window must be at least 1, not 0."),
        ({"name": "warm", "kind": "hard", "beta": 6.0}, "^.loss. is hard and hot at once: lower loss.beta, or set "),
        ({"name": "warm", "windw": 1}, "unknown option in .loss.: `windw`. Did you mean `window`?"),
    ],
)
def test_a_setting_of_an_objective_is_checked_by_its_own_range(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
        WarmConfig(**given)
    assert WarmConfig("sigmoid", beta=11.0).settings.beta == 11.0


def test_a_setting_that_the_objective_does_not_read_is_refused_naming_those_that_do() -> None:
    for refuses in (attrgetter("settings"), methodcaller("require_effect")):
        with pytest.raises(ConfigError, match=r"loss\.window has no effect on the loss `ipo`: .* to `warm`\."):
            refuses(WarmConfig("ipo", window=3))


def test_settings_are_resolved_and_unset_again() -> None:
    assert settings_table(Config(loss=LossConfig("ipo")))["loss"] == {"name": "ipo", "beta": 0.1}
    assert LossConfig("ipo", beta=0.1).without_defaults() == LossConfig("ipo")
    assert LossConfig("ipo", beta=0.2).without_defaults() == LossConfig("ipo", beta=0.2)


def test_the_objective_of_a_run_can_be_replaced_by_a_flag(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for own in ({"beta": 0.1, "label_smoothing": 0.0}, {"beta": 0.3, "label_smoothing": 0.0}):
        path.write_text(json.dumps({"schema": 1, "loss": {"name": "sigmoid", **own}}))
        assert parse_config([str(path), "--loss.name", "ipo"]).loss.settings.beta == own["beta"]
    path.write_text(json.dumps({"loss": {"name": "sigmoid", "beta": 0.1, "label_smoothing": 0.2}}))
    with pytest.raises(ConfigError, match=r"loss\.label_smoothing has no effect on the loss `ipo`"):
        parse_config([str(path), "--loss.name", "ipo"])


def test_settings_that_a_later_version_wrote_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"schema": SCHEMA + 1, "loss": {"name": "sigmoid"}}))
    with pytest.raises(ConfigError, match=r"config\.json: a later version of tiltlm wrote it"):
        parse_config([str(path)])


def test_a_configuration_can_be_sent_to_another_process() -> None:
    config = Config(loss=LossConfig("ipo", beta=0.3), data=DataConfig(train="x", columns={"prompt": "q"}))
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config


def test_settings_written_before_objectives_had_their_own_are_read() -> None:
    earlier = {"loss": {"name": "ipo", "beta": 0.2, "label_smoothing": 0.0}}
    assert validate(config_from_dict(earlier)).loss == LossConfig("ipo", beta=0.2)


# Files, flags, and back


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[loss]\nbeta = 0.3\nname = "ipo"\n'
        "[training]\nlearning_rate = 1e-4\n"
        '[comparison]\nextra_prompts = ["a", "b"]\n',
    )
    parsed = parse_config([str(path), "--loss.beta", "0.5", "--training.max-steps=7", "--run.overwrite"])
    assert parsed == Config(
        run=config.RunConfig(overwrite=True),
        loss=config.LossConfig(name="ipo", beta=0.5),
        training=config.TrainingConfig(learning_rate=1e-4, max_steps=7),
        comparison=config.ComparisonConfig(extra_prompts=("a", "b")),
    )


def test_flags_may_be_written_with_underscores() -> None:
    assert parse_config(["--data.train", "x", "--data.max_length=9"]).data.max_length == 9


def test_a_flag_can_unset_an_option(tmp_path: Path) -> None:
    path = written(tmp_path, "[training]\nmax_steps = 3\n")
    assert parse_config([str(path), "--training.max-steps", "None"]).training.max_steps is None


def test_without_file_and_data_the_demo_is_the_starting_point() -> None:
    assert parse_config([]) == load_config(demo.CONFIG)
    changed = parse_config(["--loss.beta", "0.2"])
    assert changed == dataclasses.replace(load_config(demo.CONFIG), loss=config.LossConfig(beta=0.2))


@pytest.mark.parametrize("words", [["--data.train", "mine.jsonl"], ["--data.train=mine.jsonl"]])
def test_own_data_starts_from_the_defaults(words: list[str]) -> None:
    assert parse_config(words) == Config(data=config.DataConfig(train="mine.jsonl"))


def test_flags_are_validated_too(tmp_path: Path) -> None:
    path = written(tmp_path, '[loss]\nname = "ipo"\n')
    with pytest.raises(ConfigError, match=r"loss\.label_smoothing has no effect"):
        parse_config([str(path), "--loss.label-smoothing", "0.1"])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_configuration_is_valid(path: Path) -> None:
    if "stage" in (table := tomllib.loads(path.read_text(encoding="utf-8"))):
        assert len(parse([str(path)]).recipe.ready().stages) == len(table["stage"])
    elif "sweep" in table:
        words = parse_sweep([str(path)])
        assert words.plan is not None and words.plan.corners()
    else:
        assert parse_config([str(path)]) == validate(load_config(path))


def strategy(section: str, option: str) -> st.SearchStrategy[Any]:
    """Values that an option takes."""
    if (section, option) == ("run", "trackers"):
        return st.lists(st.sampled_from(list(TRACKERS)), unique=True).map(tuple)
    if (section, option) == ("comparison", "reward"):
        return st.sampled_from(["none", "vader", "rules.toml", "own.py:short", "model:folder"])
    if (section, option) == ("rounds", "judge"):
        return st.sampled_from(["", "vader", "rules.toml", "own.py:short", "model:folder", "https://host/v1"])
    of_kinds = values_of(HINTS[section, option], RANGED.get((section, option), {}))

    def taken(value: object) -> bool:
        try:
            SECTIONS[section](**{option: value})
        except ConfigError:
            return False
        return True

    kinds = {get_origin(kind) or kind for kind in alternatives(HINTS[section, option])}
    return of_kinds.filter(taken) if {str, tuple} & kinds else of_kinds


def values_of(hint: Any, limits: dict[str, float]) -> st.SearchStrategy[Any]:
    """Values of a type within limits."""
    low, high = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
    numbers = st.floats(low, high, exclude_min="gt" in limits, exclude_max="lt" in limits, allow_nan=False)
    kinds: dict[Any, st.SearchStrategy[Any]] = {
        str: st.text(max_size=5),
        int: st.integers(
            None if low is None else int(low) + ("gt" in limits), None if high is None else int(high) - ("lt" in limits)
        ),
        float: numbers.filter(math.isfinite),
        bool: st.booleans(),
        type(None): st.none(),
        tuple: st.lists(st.text(max_size=5), max_size=3).map(tuple),
        dict: st.dictionaries(st.sampled_from(COLUMNS), st.text(max_size=5), max_size=3),
    }
    of_kinds = [
        st.sampled_from(get_args(kind)) if get_origin(kind) is Literal else kinds[get_origin(kind) or kind]
        for kind in alternatives(hint)
    ]
    return st.one_of(*of_kinds)


def section_strategy(section: str) -> st.SearchStrategy[Any]:
    if section == "loss":
        return st.one_of(*(loss_strategy(name) for name in OBJECTIVES))
    options = {option: strategy(section, option) for option in get_type_hints(SECTIONS[section])}
    return st.fixed_dictionaries(options).map(lambda values: SECTIONS[section](**values))


def loss_strategy(name: str) -> st.SearchStrategy[LossConfig]:
    """An objective with settings that it reads, some of them set."""
    given = {option: st.none() | values_of(hint, limits_of(hint)) for option, hint in own_hints(name).items()}

    def effective(values: dict[str, Any]) -> dict[str, Any]:
        unread = values.get("divergence") != "alpha"
        return {option: value for option, value in values.items() if option != "divergence_alpha" or not unread}

    return st.fixed_dictionaries(given).map(lambda values: LossConfig(name=name, **effective(values)))


@settings(max_examples=30, deadline=None)
@given_any(sections=st.fixed_dictionaries({section: section_strategy(section) for section in SECTIONS}))
def test_settings_come_back_from_json_as_they_were(sections: dict[str, Any]) -> None:
    original = Config(**sections)
    assert config_from_dict(json.loads(json.dumps(dataclasses.asdict(original)))) == original
    resolved = config_from_dict(json.loads(json.dumps(settings_table(original))))
    assert resolved.loss.settings == original.loss.settings
    assert dataclasses.replace(resolved, loss=original.loss) == original


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().training.epochs = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().loss.name = "ipo"


# Help


def documented() -> dict[tuple[str, str], str]:
    """The text of each option."""
    return {(name, option): text for name, kind in SECTIONS.items() for option, text in option_texts(kind).items()}


def test_the_text_of_an_option_is_the_one_below_it() -> None:
    assert documented()["training", "learning_rate"] == "Peak learning rate."
    text = documented()["model", "path"]
    assert text.startswith("Hub id or folder of a transformers causal language model, or of a LoRA adapter of one")


def test_every_option_has_a_text() -> None:
    texts = documented()
    assert set(texts) == set(HINTS)
    assert all(len(text) > 15 and text.rstrip().endswith((".", "`")) for text in texts.values())


def test_the_help_shows_every_option_with_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_config(["--help"])
    shown = capsys.readouterr()
    assert caught.value.code == 0 and shown.err == ""
    # Boxes and line breaks depend on the terminal.
    words = re.sub(r"[│╭╮╰╯─\s]+", "", shown.out)
    for place, text in documented().items():
        assert flag(*place) in words
        assert re.sub(r"\s+", "", text) in words[words.index(flag(*place)) :]


# The command line


@pytest.mark.parametrize(("section", "option"), HINTS)
def test_a_misspelt_flag_ends_with_2_and_the_nearest_name(
    section: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    meant = flag(section, option)
    assert main(["train", meant[:-1], "1"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert (
        shown.err.startswith(f"tiltlm: there is no option `{meant[:-1]}`. Did you mean ") and f"`{meant}`" in shown.err
    )
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--loss.name", "sigmod"], "sigmoid"),
        (["--training.epochs", "1.5"], "--training.epochs"),
        (["--loss.beta"], "--loss.beta"),
    ],
)
def test_a_flag_of_a_wrong_value_ends_with_2(words: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and part in shown.err and shown.err.count("\n") == 1


def test_a_mistake_in_the_settings_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(written(tmp_path, "[loss]\nbetta = 1\n"))]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("tiltlm: ") and "Did you mean `beta`?" in shown.err
    assert main(["train", "--loss.beta", "0"]) == 2
    assert capsys.readouterr().err == "tiltlm: loss.beta must be above 0 and finite, not 0.0.\n"
    assert main(["inspect"]) == 2
    assert "name the data to inspect" in capsys.readouterr().err


def test_any_other_trouble_of_the_user_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "nowhere")]) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("tiltlm: there is no run in ")


def test_a_mistake_in_the_program_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(words: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setitem(commands.COMMANDS, "train", fails)
    with pytest.raises(ZeroDivisionError):
        main(["train"])


@pytest.mark.parametrize(("error", "code"), [(TiltlmError("x"), 1), (ConfigError("x"), 2), (KeyboardInterrupt(), 130)])
def test_exit_codes(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(words: object) -> int:
        raise error

    monkeypatch.setitem(commands.COMMANDS, "train", fails)
    assert main(["train"]) == code
    shown = capsys.readouterr()
    assert shown.out == "" and "tiltlm: " in shown.err


def test_an_unknown_command_and_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err == "tiltlm: there is no command `trian`. Did you mean `tiltlm train`?\n"
    assert main([]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("usage: tiltlm")


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"
    assert main(["--help"]) == 0
    usage = capsys.readouterr().out
    assert all(f" {command} " in usage for command in commands.COMMANDS)


def test_mistakes_and_help_do_not_wait_for_pytorch() -> None:
    program = (
        "import sys, tiltlm.cli.commands\n"
        "code = tiltlm.cli.commands.main(['train', '--loss.beta', '0'])\n"
        "print(code, [name for name in ('torch', 'transformers', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "2 []\n"
