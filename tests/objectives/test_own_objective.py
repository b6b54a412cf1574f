"""An objective of a user's own: what may be one, what is said of what may not, and the checks that it is held to."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from pydantic import Field
from scored_examples import losses, pairs

from tiltlm import LossOutput, Needs, Objective, Scored, objective, sides
from tiltlm.cli.command_line import parse_config, parse_inspect
from tiltlm.config import config_from_dict, load_config, settings_table
from tiltlm.config.own_loss import UnreadLoss
from tiltlm.config.validation import ready
from tiltlm.errors import ConfigError, SelfCheckError
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.dpo import SIGMOID
from tiltlm.objectives.functions import DeclarationError
from tiltlm.objectives.own_file import as_objective, given_objective, is_own, read_own
from tiltlm.training.objective_checks import check_objective

HINGE = """
from tiltlm import LossOutput, sides

def mine(scored, *, beta=0.1, power: int = 1):
    \"\"\"Mine: the hinge
    of margins.

    More.\"\"\"
    rewards_N = beta * scored.log_ratios()
    chosen_P, rejected_P = sides(rewards_N)
    return LossOutput((1 - (chosen_P - rejected_P)).relu() ** power, rewards_N.detach())
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(HINGE)
    return tmp_path


# What may be one


def test_a_functions_keyword_arguments_are_its_settings() -> None:
    own = read_own("my.py:mine").objective
    assert own.name == "my.py:mine" and own.what == "Mine: the hinge of margins."
    assert own.needs == Needs()
    assert vars(own.settings()) == {"beta": 0.1, "power": 1}
    # 1 - 0.5 * (2 - (-1)) = -0.5, and 1 - 0.5 * 1 = 0.5.
    given_pairs = pairs([-10, -10], [-30, -20], [-12, -10], [-29, -19])
    assert losses(own, given_pairs, beta=0.5) == pytest.approx([0.0, 0.5])
    assert losses(own, given_pairs, beta=0.5, power=2) == pytest.approx([0.0, 0.25])


def test_a_declared_function_says_what_it_needs() -> None:
    Path("my.py").write_text(
        "from tiltlm import LossOutput, Needs, objective\n"
        "@objective(Needs(unit='completion', reference=False), what='Imitates', detaches=True)\n"
        "def mine(scored):\n    return LossOutput(-scored.logps_N, scored.logps_N.detach())\n"
    )
    own = read_own("my.py:mine").objective
    assert own.needs == Needs(unit="completion", reference=False)
    assert (own.what, own.detaches) == ("Imitates.", True)


def test_an_objective_may_be_declared_as_those_of_tiltlm_are() -> None:
    path = Path(__file__).parents[2] / "examples" / "own_objective.py"
    own = read_own(f"{path}:SQUARED_HINGE").objective
    assert own.settings().beta == 0.1 and own.source == "https://arxiv.org/abs/2402.05749"
    assert all(check.passed for check in check_objective(own, own.settings()))


def test_settings_are_checked_as_annotated() -> None:
    @objective()
    def mine(scored: Scored, *, beta: Annotated[float, Field(gt=0)] = 0.1, kind: str = "a") -> LossOutput:
        return LossOutput(scored.logps_N, scored.logps_N)

    assert mine.settings(beta=2).beta == 2
    with pytest.raises(ValueError, match="greater than 0"):
        mine.settings(beta=0)
    with pytest.raises(ValueError, match="betta"):
        mine.settings(betta=0.1)


@pytest.mark.parametrize(
    "function",
    [
        lambda scored, settings: None,
        lambda scored, beta=0.1: None,
        lambda *, beta=0.1: None,
        lambda scored, **more: None,
    ],
)
def test_other_signatures_are_refused_with_the_right_one(function: Callable[..., Any]) -> None:
    with pytest.raises(DeclarationError, match=r"def <lambda>\(scored, \*, beta=0\.1\)"):
        objective()(function)


def test_what_is_named_like_a_file_is_ones_own() -> None:
    assert is_own("my.py:mine") and is_own("~/a b/my.py:mine") and is_own("given:mine")
    assert not any(is_own(name) for name in (*OBJECTIVES, "my.py", "mine", 3, None))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("none.py:mine", HINGE, r"none\.py cannot be read \(No such file or directory\); .*working directory, "),
        ("my.py:other", HINGE, r"there is no `other` in my\.py\. It has: mine\."),
        ("my.py:mine", "mine = 3", r"it is a int, neither a function nor a tiltlm\.Objective"),
        ("my.py:mine", "x = 1\ny = x / 0\n", r"fails: my\.py, line 2 \(y = x / 0\): ZeroDivisionError: division by"),
        ("my.py:mine", "def mine(scored:\n", r"fails: my\.py, line 1 \(def mine\(scored:\): SyntaxError"),
        ("my.py:mine", "import sys; sys.exit(3)", r"fails: my\.py, line 1 .*SystemExit: 3"),
        ("my.py:mine", "def mine(scored, *, name='a'): pass", r"calls a setting `name`"),
        ("my.py:mine", "def mine(scored, *, beta: Missing = 1): pass", r"setting `beta` is not known"),
        ("my.py:mine", "def mine(scored, *, beta: int = 'a'): pass", r"default of its setting `beta`"),
        (
            "given:mine",
            HINGE,
            r"`mine` was given from Python: give it again, tiltlm\.train\(",
        ),
    ],
)
def test_what_is_wrong_with_the_file_is_said(name: str, text: str, said: str) -> None:
    if "Missing" in text:
        text = f"from __future__ import annotations\n{text}"
    Path("my.py").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_own(name)


def test_a_file_is_run_once_for_its_content_and_its_name_is_nobody_elses() -> None:
    first = read_own("my.py:mine")
    assert read_own("my.py:mine").objective.loss.__wrapped__ is first.objective.loss.__wrapped__  # type: ignore[attr-defined]
    Path("my.py").write_text(HINGE.replace("relu() ** power", "relu() ** (2 * power)"))
    assert read_own("my.py:mine").digest != first.digest
    assert losses(read_own("my.py:mine").objective, pairs([0], [0], [0], [0.0]), power=1) == [1.0]


# Settings


def test_flags_and_files_of_settings_know_its_settings() -> None:
    by_flags = parse_config(["--loss.name", "my.py:mine", "--loss.power", "2", "--data.train", "x.jsonl"])
    Path("run.toml").write_text('[loss]\nname = "my.py:mine"\npower = 2\n[data]\ntrain = "x.jsonl"\n')
    by_file = parse_config(["run.toml"])
    mixed = parse_config(["run.toml", "--loss.power=3"])
    assert settings_table(by_flags) == settings_table(by_file)
    assert settings_table(by_file)["loss"] == {"name": "my.py:mine", "beta": 0.1, "power": 2}
    assert mixed.loss.settings.power == 3
    assert parse_inspect(["x.jsonl", "--loss.name", "my.py:mine"]).settings.loss.objective.name == "my.py:mine"
    Path("run.toml").write_text('[loss]\nname = "my.py:mine"\nbeta = 0.3\n')
    other = parse_config(["run.toml", "--loss.name", "ipo"])
    assert other.loss.settings == OBJECTIVES["ipo"].settings(beta=0.3)
    Path("run.toml").write_text('[loss]\nname = "my.py:mine"\npower = 2\n')
    with pytest.raises(ConfigError, match=r"loss\.power is a setting of `my\.py:mine`, and of no other"):
        parse_config(["run.toml", "--loss.name", "ipo"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--loss.powr", "2"], r"no option `--loss\.powr`\. Did you mean `--loss\.power`"),
        (["--loss.power", "x"], r"--loss\.power is a whole number, not `x`"),
        (["--loss.label-smoothing", "0.1"], r"loss\.label_smoothing has no effect on the loss `my\.py:mine`"),
    ],
)
def test_settings_that_it_has_not_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config(["--loss.name", "my.py:mine", *words])


def test_unknown_settings_in_a_file_are_refused_naming_those_it_has() -> None:
    with pytest.raises(
        ConfigError, match=r"`my\.py:mine` has no setting `powr`\. Did you mean `power`\? It has: beta, power"
    ):
        ready(config_from_dict({"loss": {"name": "my.py:mine", "powr": 2}}))


def test_reading_settings_runs_no_code() -> None:
    Path("my.py").write_text("raise RuntimeError('run')")
    Path("run.toml").write_text('[loss]\nname = "my.py:mine"\nbeta = 2\n')
    config = load_config(Path("run.toml"))
    assert isinstance(config.loss, UnreadLoss)
    assert settings_table(config)["loss"] == {"name": "my.py:mine", "beta": 2}
    assert config == config_from_dict(settings_table(config))
    with pytest.raises(ConfigError, match="its code has not been run"):
        _ = config.loss.objective
    with pytest.raises(ConfigError, match="RuntimeError: run"):
        ready(config)


def test_it_may_be_given_from_python() -> None:
    @objective(Needs(counts=True))
    def mine(scored: Scored, *, beta: float = 0.1) -> LossOutput:
        return LossOutput(scored.logps_N, scored.logps_N)

    own = given_objective(mine)
    assert own.objective.name == "given:mine" and b"def mine" in own.source
    assert given_objective(SIGMOID).objective.loss is SIGMOID.loss
    with pytest.raises(ConfigError, match=r"is a int, neither"):
        given_objective(3)


# Checks


def dpo(scored: Scored, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    rewards_N = beta * scored.log_ratios()
    chosen_P, rejected_P = sides(rewards_N)
    return torch.nn.functional.softplus(rejected_P - chosen_P), rewards_N


def sound(scored: Scored, *, beta: float = 0.1) -> LossOutput:
    losses_P, rewards_N = dpo(scored, beta)
    return LossOutput(losses_P, rewards_N.detach())


def rewards_with_gradient(scored: Scored) -> LossOutput:
    return LossOutput(*dpo(scored, 0.1))


def rewards_of_pairs(scored: Scored) -> LossOutput:
    losses_P, rewards_N = dpo(scored, 0.1)
    return LossOutput(losses_P, sides(rewards_N)[0].detach())


def one_loss(scored: Scored) -> LossOutput:
    losses_P, rewards_N = dpo(scored, 0.1)
    return LossOutput(losses_P.mean(), rewards_N.detach())


def not_finite(scored: Scored) -> LossOutput:
    losses_P, rewards_N = dpo(scored, 0.1)
    return LossOutput(losses_P / 0, rewards_N.detach())


def half_detached(scored: Scored) -> LossOutput:
    losses_P, rewards_N = dpo(scored, 0.1)
    return LossOutput(losses_P * sides(scored.logps_N)[0].detach(), rewards_N.detach())


def without_gradient(scored: Scored) -> LossOutput:
    losses_P, rewards_N = dpo(scored, 0.1)
    return LossOutput(losses_P.detach(), rewards_N.detach())


def by_place(scored: Scored) -> LossOutput:
    losses_P, rewards_N = dpo(scored, 0.1)
    return LossOutput(losses_P * torch.arange(1, len(losses_P) + 1), rewards_N.detach())


def by_batch(scored: Scored) -> LossOutput:
    losses_P, rewards_N = dpo(scored, 0.1)
    return LossOutput(losses_P / len(losses_P), rewards_N.detach())


def reads_more(scored: Scored) -> LossOutput:
    return LossOutput(scored.token_logps_T.sum(), scored.logps_N)  # type: ignore[union-attr]


def a_tensor(scored: Scored) -> Any:
    return dpo(scored, 0.1)[0]


FAULTS: dict[Callable[..., Any], str] = {
    rewards_with_gradient: r"`losses and rewards`: .*rewards that have a gradient: detach\(\) them",
    rewards_of_pairs: r"`losses and rewards`: .*rewards of shape \(4,\), not \(8,\)",
    one_loss: r"`losses and rewards`: .*losses of shape \(\), not \(4,\).*one loss for each pair",
    not_finite: r"`losses and rewards`: .*losses that are not finite: \[inf",
    half_detached: r"`gradient`: slopes are within .* furthest apart .*declare it, detaches=True",
    without_gradient: r"`gradient`: the losses have none: nothing would be learnt",
    by_place: r"`the order of examples changes nothing`: losses \[.* become \[",
    by_batch: r"`micro-batches change nothing`: losses \[.*Needs\(coupled=True\)",
    reads_more: r"fails on random examples .*AttributeError: .*What it may read of them is what its `Needs` name",
    a_tensor: r"gives a Tensor: it must give LossOutput\(losses_U, rewards_N\)",
}


def test_what_is_sound_passes() -> None:
    own = objective()(sound)
    checks = check_objective(own, own.settings())
    assert [check.name for check in checks] == [
        "losses and rewards",
        "gradient",
        "the order of examples changes nothing",
        "micro-batches change nothing",
    ]
    assert all(check.passed for check in checks)


@pytest.mark.parametrize("function", FAULTS, ids=lambda function: function.__name__)
def test_each_fault_ends_it_with_what_was_found(function: Callable[..., Any]) -> None:
    own = objective()(function)
    with pytest.raises(SelfCheckError, match=FAULTS[function]):
        check_objective(own, own.settings())


def test_a_part_that_is_declared_to_have_no_gradient_is_held_fixed() -> None:
    own = objective(detaches=True)(half_detached)
    assert "held fixed" in check_objective(own, own.settings())[1].name

    @objective(detaches=True)
    def wrong(scored: Scored) -> LossOutput:
        losses_P, rewards_N = dpo(scored, 0.1)
        return LossOutput(losses_P * sides(scored.logps_N)[0].clone().apply_(float), rewards_N.detach())

    with pytest.raises(SelfCheckError):
        check_objective(wrong, wrong.settings())


def test_coupled_losses_may_depend_on_the_batch() -> None:
    own = objective(Needs(coupled=True))(by_batch)
    assert len(check_objective(own, own.settings())) == 3


def test_the_line_of_the_file_that_fails_is_told() -> None:
    Path("my.py").write_text("def mine(scored):\n    a = scored.logps_N\n    return a.nothing\n")
    own = read_own("my.py:mine").objective
    with pytest.raises(SelfCheckError, match=r"my\.py, line 3 \(return a\.nothing\): AttributeError"):
        check_objective(own, own.settings())


@pytest.mark.parametrize("own", OBJECTIVES.values(), ids=OBJECTIVES)
def test_tiltlms_own_pass(own: Objective) -> None:
    assert all(check.passed for check in check_objective(own, own.settings()))


def test_the_page_shows_objectives_that_pass() -> None:
    page = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text(encoding="utf-8")
    (program,) = re.findall(r'^```python\n("""my_losses\.py""".*?)^```$', page, flags=re.MULTILINE | re.DOTALL)
    Path("my_losses.py").write_text(program)
    for name in ("hinge", "per_token"):
        own = read_own(f"my_losses.py:{name}").objective
        assert as_objective(own, "again").name == "again"
        assert all(check.passed for check in check_objective(own, own.settings()))
