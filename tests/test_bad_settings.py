"""Settings that cannot be, typed as a user types them: one clear line, the exit code of misuse, nothing left behind.

Every option's type and range, whoever gives it (a file, flags, Python), is tested in `test_config.py`; names of other
trainers and words that belong to no option in `test_command_line.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from tiltlm.cli import main
from tiltlm.config import Config, config_from_dict
from tiltlm.config.declaring import limits_of
from tiltlm.config.loss_config import NAMED, readers_of, settings_of
from tiltlm.config.validation import validate
from tiltlm.errors import ConfigError
from tiltlm.objectives import OBJECTIVES
from tiltlm.text.type_words import alternatives

OPTIONS = {
    f"{section}.{option}": hint
    for section, kind in get_type_hints(Config).items()
    for option, hint in get_type_hints(kind, include_extras=True).items()
}
RANGED = [name for name, hint in OPTIONS.items() if limits_of(hint)]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").write_text(json.dumps({"prompt": "p", "chosen": "c", "rejected": "r"}) + "\n")


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a user reads."""
    assert main(["train", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("tiltlm: ") and shown.err.count("\n") == 1 and "Traceback" not in shown.err
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["pairs.jsonl"]
    return shown.err


def beside(option: str) -> list[str]:
    section, _, name = option.partition(".")
    return ["--loss.name", readers_of(name, OBJECTIVES)[0]] if section == "loss" else []


@pytest.mark.parametrize("option", RANGED)
def test_a_number_that_cannot_be(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    for value in ("text", "nan", "-inf", "-1"):
        assert option in refused([*beside(option), "--data.train", "pairs.jsonl", f"--{option}={value}"], capsys)


@pytest.mark.parametrize("option", [name for name, hint in OPTIONS.items() if bool in alternatives(hint)])
def test_a_switch_that_cannot_be(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    flag = f"--{option.replace('_', '-')}"
    assert flag in refused(["--data.train", "pairs.jsonl", f"{flag}=perhaps"], capsys).replace("_", "-")


# Words, and what the message must say: the option, and what is the matter.
TOGETHER: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "prompt longer than the whole": (
        ["--data.max_length", "8", "--data.max_prompt_length", "8"],
        ("data.max_prompt_length (8) must be below data.max_length (8)",),
    ),
    "decay without adamw": (
        ["--training.optimizer", "rmsprop", "--training.weight_decay", "0.1"],
        ("training.weight_decay has no effect on `rmsprop`", "remove it"),
    ),
    "steps and passes": (
        ["--training.max_steps", "5", "--training.epochs", "2"],
        ("training.epochs has no effect when training.max_steps is given", "remove one"),
    ),
    "warm-up longer than the run": (
        ["--training.max_steps", "5", "--training.warmup_steps", "6"],
        ("training.warmup_steps is 6, but the run has 5 steps", "lower it"),
    ),
    "temperature without samples": (
        ["--comparison.samples", "0", "--comparison.temperature", "0.5"],
        ("comparison.temperature has no effect without sampled answers",),
    ),
    "share and held-out data": (
        ["--data.eval", "pairs.jsonl", "--data.eval_fraction", "0.2"],
        ("data.eval_fraction has no effect when data.eval is given",),
    ),
    "a split of held-out data that are not given": (
        ["--data.eval_split", "dev"],
        ("data.eval_split has no effect when data.eval is unset",),
    ),
    "a reference that nothing is held to": (
        ["--loss.name", "simpo", "--model.reference", "gpt2"],
        ("model.reference has no effect on the loss `simpo`",),
    ),
    "code of a model that has none": (
        ["--model.trust-remote-code"],
        ("model.trust_remote_code has no effect on the embedded model",),
    ),
    "an empty prompt": (
        ["--comparison.extra_prompts", "Hello", " "],
        ("comparison.extra_prompts", "empty"),
    ),
    "an unknown column": (["--data.columns", "prmpt=x"], ("data.columns", "Did you mean `prompt`?")),
    "an impossible name": (["--run.name", "a/b"], ("run.name must be a folder name",)),
    "an empty place": (["--model.path", " "], ("model.path is empty",)),
    "more samples than anyone reads": (["--comparison.samples", "10001"], ("comparison.samples must be", "10000")),
    "a seed that torch does not take": ([f"--run.seed={2**63}"], ("run.seed must be", str(2**63))),
}


@pytest.mark.parametrize("case", TOGETHER)
def test_settings_that_cannot_be_together(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    words, parts = TOGETHER[case]
    message = refused(["--data.train", "pairs.jsonl", *words], capsys)
    assert all(part in message for part in parts)


@pytest.mark.parametrize(("words", "part"), [
    (["--data.train_split", "dev"], "data.train_split has no effect on the file pairs.jsonl"),
    (["--data.subset", "easy"], "data.subset has no effect on the file pairs.jsonl"),
    (["--data.ranked_pairs", "best-worst"], "data.ranked_pairs has no effect on the format `preference`"),
])  # fmt: skip
def test_what_the_data_show_to_have_no_effect(words: list[str], part: str) -> None:
    from tiltlm.data.preparation import read_data

    section, options = "data", {words[0].rpartition(".")[2]: words[1]}
    with pytest.raises(ConfigError) as caught:
        read_data(config_from_dict({section: {"train": "pairs.jsonl", **options}}))
    assert part in str(caught.value) and str(caught.value).endswith("remove it.")


def not_read() -> list[tuple[str, str, Any]]:
    """Each setting of an objective beside each objective that does not read it, with a value that its own takes."""
    found = []
    for option in settings_of(OBJECTIVES):
        readers = readers_of(option, OBJECTIVES)
        value = getattr(OBJECTIVES[readers[0]].settings(), option) or 0.1  # 0 was once written beside losses without it
        found += [(name, option, value) for name in OBJECTIVES if name not in readers]
    return found


@pytest.mark.parametrize(("objective", "option", "value"), not_read())
def test_a_setting_that_an_objective_does_not_read(objective: str, option: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(config_from_dict({"loss": {"name": objective, option: value}}))
    message = str(caught.value)
    assert message.startswith(f"loss.{option} has no effect on the loss `{objective}`: remove it, or set loss.name to ")
    readers = readers_of(option, OBJECTIVES)
    assert all(f"`{name}`" in message for name in readers[:NAMED])
    assert (f"another of {len(readers)}" in message) == (len(readers) > NAMED)
