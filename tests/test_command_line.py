"""Words of a command line: what is meant is done, what is not understood is said in a line."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tiltlm.cli import main
from tiltlm.cli.arguments import COMMANDS
from tiltlm.cli.command_line import parse, parse_config
from tiltlm.cli.commands import COMMANDS as FUNCTIONS
from tiltlm.cli.descriptions import DESCRIPTIONS
from tiltlm.config import Config, RunConfig, config_from_dict, option_names
from tiltlm.config.suggestions import NOTES, OPTIONS, VALUES, nearest_options
from tiltlm.config.validation import validate
from tiltlm.errors import ConfigError
from tiltlm.runs.folder import RunFolder


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a misused command ends with."""
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("tiltlm: ") and shown.err.count("\n") == 1
    return shown.err


# Suggestions


@pytest.mark.parametrize(
    ("flag", "meant"),
    [
        ("--lr", "--training.learning-rate"),
        ("--learning_rate", "--training.learning-rate"),
        ("--learning-rate=1e-5", "--training.learning-rate"),
        ("--epochs", "--training.epochs"),
        ("--num_train_epochs", "--training.epochs"),
        ("--bs", "--training.batch-pairs"),
        ("--per_device_train_batch_size", "--training.batch-pairs"),
        ("--beta", "--loss.beta"),
        ("--loss.betta", "--loss.beta"),
        ("--losss.beta", "--loss.beta"),
        ("--loss_type", "--loss.name"),
        ("--output_dir", "--run.directory"),
        ("--model", "--model.path"),
        ("--max_len", "--data.max-length"),
        ("--training.lr", "--training.learning-rate"),
        ("--training.beta", "--loss.beta"),
        ("-lr", "--training.learning-rate"),
        ("--seed", "--run.seed"),
        ("--no-overwrite", "--run.overwrite"),
    ],
)
def test_a_flag_of_another_trainer_gets_ours(flag: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"`{meant}`" in said(["train", flag, "1"], capsys)


def test_a_name_that_several_options_have_gets_all(capsys: pytest.CaptureFixture[str]) -> None:
    line = said(["train", "--name", "x"], capsys)
    assert "`--run.name`" in line and "`--loss.name`" in line


def test_a_flag_like_no_other_gets_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert "`tiltlm train --help` lists all" in said(["train", "--zzzzzzzz", "1"], capsys)


def test_every_suggestion_is_an_option_and_every_name_is_foreign() -> None:
    assert set(OPTIONS.values()) | set(VALUES) <= set(option_names())
    assert not set(OPTIONS) & set(option_names())
    for name, meant in OPTIONS.items():
        assert meant in nearest_options(name, option_names()) or name in {o.split(".")[1] for o in option_names()}


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--loss.name", "dpo"], "`sigmoid`"),
        (["--loss.name=sigmod"], "`sigmoid`"),
        (["--training.optimizer", "adam"], "`adamw`"),
        (["--model.precision", "bf16"], "`bfloat16`"),
        (["--model.save-dtype", "fp16"], "`float16`"),
        (["--model.device", "gpu"], "`cuda`"),
    ],
)
def test_a_value_of_another_trainer_gets_ours(words: list[str], meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"Did you mean {meant}?" in said(["train", *words], capsys)


def test_the_same_in_a_file() -> None:
    with pytest.raises(ConfigError, match=r"loss\.name cannot be `dpo`; .* Did you mean `sigmoid`\?"):
        config_from_dict({"loss": {"name": "dpo"}})
    with pytest.raises(
        ConfigError, match=r"unknown option in \[training\]: `lr`\. Did you mean `training.learning_rate`"
    ):
        config_from_dict({"training": {"lr": 1e-5}})


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["train", "--run.overwrite", "yes"], "--run.overwrite is a switch"),
        (["train", "--run.overwrite=true"], "--run.overwrite is a switch"),
        (["train", "--run.name", "a", "b"], "`b` belongs to no option"),
        (
            ["train", "--run.name", "a", "more.jsonl"],
            "`more.jsonl` looks like data: tiltlm train --data.train more.jsonl",
        ),
        (["train", "--run.name", "--run.seed", "1"], "--run.name needs a value"),
        (["train", "--training.epochs", "two"], "--training.epochs is a whole number, not `two`"),
        (["train", "--training.learning-rate", "fast"], "--training.learning-rate is a number, not `fast`"),
        (["inspect", "a.jsonl", "--data.columns", "prompt"], "--data.columns takes OURS=THEIRS"),
        (["inspect", "a.jsonl", "--data.columns=prompt="], "prompt=question, not `prompt=`"),
        (["inspect", "a.jsonl", "--data.columns", "prompt=a", "question"], "not `question`"),
        (["inspect", "a.jsonl", "--data.columns", "prompt=a", "prompt=b"], "--data.columns names `prompt` twice"),
        (["inspect", "a.jsonl", "b.jsonl"], "`b.jsonl` belongs to no option"),
        (["inspect", "a.jsonl", "--lr", "1"], "--training.learning-rate"),
        (["compare", "--promt", "x"], "there is no option `--promt`. Did you mean `--prompt`?"),
        (["compare", "a", "--prompt"], "--prompt needs a text"),
        (["compare", "--prompt", "--prompt"], "--prompt needs a text"),
        (["compare", "a", "b"], "`b` belongs to no option"),
        (["report"], "tiltlm report runs/NAME"),
        (["report", "a", "--x"], "there is no option `--x`"),
        (["cache", "--clear", "everything"], "--clear cannot be `everything`"),
        (["cache", "x"], "`x` belongs to no option"),
        (["traim"], "Did you mean `tiltlm train`?"),
        (["dance"], "There are: train, "),
    ],
)
def test_what_is_not_understood_is_said_in_a_line(
    words: list[str], part: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert part in said(words, capsys)


def test_values_that_look_odd_are_fine() -> None:
    assert parse_config(["--data.train", "x", "--run.name=-a-", "--comparison.extra-prompts", "a b", "c"]) == Config(
        run=RunConfig(name="-a-"),
        data=dataclasses.replace(Config().data, train="x"),
        comparison=dataclasses.replace(Config().comparison, extra_prompts=("a b", "c")),
    )
    with pytest.raises(ConfigError, match="must be above 0"):
        parse_config(["--loss.beta", "-1"])
    assert not parse_config(["--run.no-overwrite"]).run.overwrite


# What stands where a file of settings should


@pytest.mark.parametrize(
    "name", ["pairs.jsonl", "pairs.json", "pairs.csv.gz", "pairs.parquet", "Anthropic/hh-rlhf", "demo", "folder"]
)
@pytest.mark.parametrize("there", [True, False])
def test_data_is_told_from_settings(
    name: str, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    if there and name != "folder":
        Path(name).parent.mkdir(exist_ok=True)
        rows = '[{"prompt": "a", "chosen": "b", "rejected": "c"}]'
        Path(name).write_text(f'{{"data": {rows}}}' if name == "pairs.json" else rows)
    line = said(["train", name], capsys)
    assert "looks like data" in line and f"tiltlm train --data.train {name}" in line


def test_a_model_and_a_run_are_told_from_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "gpt2"}')
    assert "looks like a model" in said(["train", str(tmp_path / "model")], capsys)
    run = RunFolder.create(tmp_path, "r1", overwrite=False)
    assert f"tiltlm train {run.path / 'config.json'}" in said(["train", str(run.path)], capsys)


@pytest.mark.parametrize("flag", ["--use_peft", "--resume_from_checkpoint", "--report_to", "--config", "-c"])
def test_what_is_done_otherwise_is_said(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert NOTES[flag.lstrip("-")] in said(["train", flag, "x"], capsys)


@pytest.mark.parametrize("option", ["data.train", "data.eval", "model.path", "run.directory", "hub.folder"])
def test_an_empty_place_is_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} is empty"):
        parse_config([f"--{option}="])


@pytest.mark.parametrize("command", ["inspect", "compare", "report", "cache"])
def test_help_breaks_lines_where_the_terminal_does(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not where the source does: a line ends where the next word would not fit."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = capsys.readouterr().out.replace("│", " ")
    for line, following in pairwise(line.rstrip() for line in shown.splitlines()):
        indent = len(line) - len(line.lstrip())
        if indent > 6 and following.startswith(" " * indent) and not line.endswith(")"):
            assert len(line) + 1 + len(following.split()[0]) > 76, line


COMMAND = "import sys; from tiltlm.cli import main; sys.exit(main(sys.argv[1:]))"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}


@pytest.mark.parametrize("words", [["--help"], *([command, "--help"] for command in COMMANDS)], ids=" ".join)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    at_the_end = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    command = [sys.executable, "-c", at_the_end + COMMAND, *words]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    imported = set(done.stderr.split())
    assert "tyro" in imported and ("pydantic" in imported) == (words != ["--help"])
    assert len(imported) < (250 if words == ["--help"] else 600)  # the time it takes is that of imports
    assert not imported & {"torch", "transformers", "datasets", "pyarrow", "pandas", "matplotlib", "numpy", "jinja2"}


def test_every_command_is_a_type_that_tyro_knows(capsys: pytest.CaptureFixture[str]) -> None:
    """And each is done by a function of the same name; the list of commands is drawn from the types."""
    assert list(COMMANDS) == list(FUNCTIONS)
    assert main(["help"]) == 0
    shown = " ".join(re.sub(r"[│╭╮╰╯─•]", " ", capsys.readouterr().out).split())
    assert list(COMMANDS) == list(DESCRIPTIONS)
    for name, text in DESCRIPTIONS.items():
        assert f"{name} {text.partition(chr(10) * 2)[0]}" in shown


def test_the_data_to_inspect_are_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert "named once" in said(["inspect", "a.jsonl", "--data.train", "b.jsonl"], capsys)


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot read the configuration" in said(["train", str(tmp_path / "none.toml")], capsys)
    assert "there is no file of settings `nothing`" in said(["train", "nothing"], capsys)
    assert "settings are TOML, not YAML" in said(["train", "nothing.yaml"], capsys)
    assert "Did you mean `--help`?" in said(["train", "--hlep"], capsys)


def test_the_settings_of_a_run_are_a_starting_point(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "r1", overwrite=False)
    made = dataclasses.replace(Config(), run=RunConfig(name="r1", directory=str(tmp_path), overwrite=True, seed=7))
    run.write_json("config.json", made)
    parsed = parse([str(run.path / "config.json"), "--loss.beta", "0.3"])
    assert parsed.config.run == RunConfig(name="r1", directory=str(tmp_path), overwrite=False, seed=7)
    assert parsed.config.loss.beta == 0.3
    assert not parsed.name_given
    assert parse([str(run.path / "config.json"), "--run.name", "r2"]).name_given


def test_a_damaged_setting_in_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"loss": {"betta": 1}}))
    with pytest.raises(ConfigError, match=r"config\.json: unknown option in \[loss\]: `betta`"):
        parse_config([str(path)])


@pytest.mark.parametrize(
    ("text", "words", "given"),
    [
        (None, [], False),
        (None, ["--run.name", "demo"], True),
        (None, ["--run.name=demo"], True),
        ('[run]\nname = "run"\n', [], True),
        ("[run]\nseed = 1\n", [], False),
    ],
)
def test_whether_a_name_was_given(text: str | None, words: list[str], given: bool, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(text or "")
    assert parse([*([str(tmp_path / "s.toml")] if text else []), *words]).name_given is given


def test_a_home_in_a_file_is_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_config(["--run.directory", "~/runs"]).run.directory == str(tmp_path / "runs")


# Warm-up


def test_a_warm_up_longer_than_the_run_is_refused() -> None:
    table = {"training": {"max_steps": 3, "warmup_steps": 4}}
    with pytest.raises(ConfigError, match=r"training\.warmup_steps is 4, but the run has 3 steps.*lower it to 3"):
        validate(config_from_dict(table))
    validate(config_from_dict({"training": {"max_steps": 3, "warmup_steps": 3}}))


@pytest.mark.parametrize(("file", "why"), [("none/account.json", "there is no folder none"), (".", "it is a folder")])
def test_an_account_that_cannot_be_written_is_told_before_the_work(
    file: str, why: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "pairs.jsonl", "--report", file]) == 2
    assert capsys.readouterr().err == f"tiltlm: --report {file} cannot be written: {why}.\n"
