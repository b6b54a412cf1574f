"""Settings: what is refused and how it is said, files and flags together, and the help."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltlm import __version__, config, demo
from tiltlm.cli import commands, main
from tiltlm.cli.command_line import parse_config
from tiltlm.config import Config, config_from_dict, load_config
from tiltlm.config.validation import validate
from tiltlm.errors import ConfigError, TiltlmError

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
    message = refusal({"loss": {"zzzzzz": 1}})
    assert message == "unknown option in [loss]: `zzzzzz`. There are: name, beta, label_smoothing."


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
    assert refusal({"loss": {"beta": "0.1"}}) == "loss.beta is a number, not '0.1'."
    assert refusal({"training": {"epochs": 1.5}}) == "training.epochs is a whole number, not 1.5."
    assert refusal({"training": {"max_steps": "all"}}) == "training.max_steps is a whole number or unset, not 'all'."
    assert refusal({"run": {"overwrite": 1}}) == "run.overwrite is true or false, not 1."
    assert refusal({"comparison": {"extra_prompts": "a"}}) == "comparison.extra_prompts is a list of strings, not 'a'."
    choice = refusal({"loss": {"name": "sigmod"}})
    assert choice == "loss.name cannot be `sigmod`; it is one of sigmoid, ipo. Did you mean `sigmoid`?"


def test_a_whole_number_will_do_for_a_number() -> None:
    beta = config_from_dict({"loss": {"beta": 1}}).loss.beta
    assert beta == 1.0 and type(beta) is float


# Options that have no effect, and values out of range


@pytest.mark.parametrize(
    ("table", "option", "because"),
    [
        ({"loss": {"name": "ipo", "label_smoothing": 0.1}}, "loss.label_smoothing", "`ipo`"),
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


OUT_OF_RANGE: list[tuple[str, str, list[object]]] = [
    ("loss", "beta", [0, -0.1, float("nan")]),
    ("loss", "label_smoothing", [-0.1, 0.5, 1, float("nan")]),
    ("training", "epochs", [0, -1]),
    ("training", "max_steps", [0, -1]),
    ("training", "batch_pairs", [0]),
    ("training", "micro_batch_tokens", [0]),
    ("training", "learning_rate", [0, -1e-6, float("nan")]),
    ("training", "weight_decay", [-0.1, float("nan")]),
    ("training", "warmup_steps", [-1]),
    ("training", "gradient_clip", [-1, float("nan")]),
    ("training", "eval_every", [-1]),
    ("data", "max_length", [0, -512]),
    ("data", "max_prompt_length", [0, 512, 513]),
    ("data", "max_train_pairs", [0]),
    ("data", "max_eval_pairs", [0]),
    ("data", "eval_fraction", [0, 1, -0.1, 1.5, float("nan")]),
    ("comparison", "max_new_tokens", [0]),
    ("comparison", "temperature", [0, -1, float("nan")]),
    ("comparison", "prompts", [-1]),
    ("comparison", "samples", [-1]),
    ("run", "seed", [-1]),
    ("run", "name", ["", ".", "..", "a/b", "a\\b", "a\nb", "a\x1b", "a\0", "é" * 101]),
]


@pytest.mark.parametrize(("section", "option", "values"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused(section: str, option: str, values: list[object]) -> None:
    for value in values:
        assert refusal({section: {option: value}}).startswith(f"{section}.{option} ")


def test_every_number_has_a_range() -> None:
    numbers = {place for place, hint in HINTS.items() if {int, float} & set(get_args(hint) or (hint,))}
    assert numbers <= {(section, option) for section, option, _ in OUT_OF_RANGE}


def test_the_borders_of_the_ranges_are_fine() -> None:
    zeros = {"weight_decay": 0, "warmup_steps": 0, "gradient_clip": 0, "eval_every": 0}
    validate(config_from_dict({"training": zeros, "comparison": {"prompts": 0, "samples": 0}}))
    validate(config_from_dict({"data": {"max_length": 2, "max_prompt_length": 1}, "loss": {"label_smoothing": 0.499}}))


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
    assert parse_config([str(path)]) == validate(load_config(path))


def strategy(hint: Any) -> st.SearchStrategy[Any]:
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    if get_origin(hint) is tuple:
        return st.lists(st.text(max_size=5), max_size=3).map(tuple)
    if get_origin(hint) is dict:
        return st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3)
    kinds: dict[type, st.SearchStrategy[Any]] = {
        str: st.text(max_size=5),
        int: st.integers(),
        float: st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
        type(None): st.none(),
    }
    return st.one_of(*(kinds[kind] for kind in get_args(hint) or (hint,)))


section_strategies = {
    name: st.fixed_dictionaries({option: strategy(hint) for option, hint in get_type_hints(kind).items()}).map(
        lambda values, kind=kind: kind(**values)
    )
    for name, kind in SECTIONS.items()
}


@settings(max_examples=30, deadline=None)
@given(sections=st.fixed_dictionaries(section_strategies))
def test_settings_come_back_from_json_as_they_were(sections: dict[str, Any]) -> None:
    original = Config(**sections)
    assert config_from_dict(json.loads(json.dumps(dataclasses.asdict(original)))) == original


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().loss.beta = 1.0


# Help


def documented() -> dict[tuple[str, str], str]:
    """The text below each option in config.py."""
    classes = {kind.__name__: section for section, kind in SECTIONS.items()}
    texts = {}
    tree = ast.parse(Path(config.sections.__file__).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in classes:
            for option, text in zip(node.body, node.body[1:], strict=False):
                if (
                    isinstance(option, ast.AnnAssign)
                    and isinstance(option.target, ast.Name)
                    and isinstance(text, ast.Expr)
                    and isinstance(text.value, ast.Constant)
                ):
                    texts[classes[node.name], option.target.id] = str(text.value.value)
    return texts


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
    assert capsys.readouterr().err == "tiltlm: loss.beta must be above 0 and finite; 0.1 is the paper's.\n"
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
