"""Recipes: stages one after another, each from the model of the one before, killed and gone on with."""

from __future__ import annotations

import json
import shutil
import signal
import tomllib
from pathlib import Path
from typing import Any

import pytest
from broken_runs import leave_undrawn
from kill_runs import outcome_of
from safetensors.torch import load_file
from test_resuming import sends
from tiny_runs import write_model, write_pairs

import tiltlm
from tiltlm.cli import main
from tiltlm.config import Config, config_from_dict
from tiltlm.config.recipes import Recipe, recipe_from_dict, recorded_recipe
from tiltlm.errors import ConfigError, RunError, TiltlmError
from tiltlm.runs.folder import RunFolder
from tiltlm.runs.run_files import read_run
from tiltlm.training.loop import Trainer
from tiltlm.training.observers import Row

COMMON = """
[model]
path = "base"
precision = "float32"
[data]
train = "pairs.jsonl"
[training]
batch_pairs = 4
max_steps = 3
eval_every = 2
[checkpoint]
every_steps = 1
[comparison]
prompts = 2
samples = 1
max_new_tokens = 4
"""
STAGES = """
[[stage]]
name = "first"
loss = { name = "simpo" }
training = { learning_rate = 1e-3 }
[[stage]]
name = "second"
[stage.loss]
name = "sigmoid"
beta = 0.3
[stage.training]
learning_rate = 1e-4
"""
RUN = Path("runs/run")
FIRST = RUN / "stages" / "1-first"


def enter(place: Path, patch: pytest.MonkeyPatch) -> Path:
    patch.chdir(place)
    patch.setenv("TILTLM_CACHE", str(place / "cache"))
    return place


def write_all() -> None:
    write_model(Path("base"))
    write_pairs(Path("pairs.jsonl"), 24)
    Path("recipe.toml").write_text(COMMON + STAGES)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Path:
    """A working folder with a tiny model, pairs and a recipe; reports have no curves."""
    enter(tmp_path, monkeypatch)
    write_all()
    return tmp_path


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a folder in which the recipe was trained without a stop; no test changes it."""
    place = tmp_path_factory.mktemp("unbroken")
    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(patch)
        enter(place, patch)
        write_all()
        assert main(["train", "recipe.toml"]) == 0
    return place


@pytest.fixture
def finished(unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Path:
    """A working folder in which the recipe was trained."""
    return enter(shutil.copytree(unbroken, tmp_path / "finished"), monkeypatch)


def weights(run: Path) -> dict[str, Any]:
    return load_file(run / "model" / "model.safetensors")


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(bool((one[name] == other[name]).all()) for name in one)


def test_each_stage_begins_with_the_model_of_the_one_before_and_has_it_as_its_reference(
    finished: Path,
) -> None:
    first, second = read_run(FIRST), read_run(RUN)
    assert first.settings["loss"]["name"] == "simpo"
    assert {"name": "sigmoid", "beta": 0.3}.items() <= second.settings["loss"].items()
    assert second.settings["model"]["path"] == str(FIRST / "model")
    assert second.settings["training"]["max_steps"] == 3
    assert (first.settings["training"]["learning_rate"], second.settings["training"]["learning_rate"]) == (1e-3, 1e-4)
    # The policy of the second is its reference at the start, which is the trained model of the first.
    assert second.metrics.evaluations[0].loss == pytest.approx(0.693147, abs=1e-6)
    assert not same(weights(FIRST), {**weights(FIRST), **load_file("base/model.safetensors")})
    by_hand = config_from_dict(
        {
            **{name: options for name, options in second.settings.items() if name != "run"},
            "run": {"name": "hand", "directory": "by-hand"},
            "model": {"path": str(FIRST / "model"), "precision": "float32"},
        }
    )
    assert same(weights(tiltlm.train(by_hand).folder), weights(RUN))


def test_the_report_the_summary_and_the_card_know_the_stages(finished: Path) -> None:
    summary = read_run(RUN).summary
    assert summary is not None
    assert [(stage.name, stage.place, stage.loss, stage.steps) for stage in summary.earlier] == [
        ("first", "stages/1-first", "simpo", 3)
    ]
    page = (RUN / "report.html").read_text()
    assert '<a href="stages/1-first/report.html">first</a>' in page
    assert '<th scope="row">second</th>' in page
    assert "Training curves of first" in page
    at_first = read_run(FIRST).comparison
    assert at_first is not None
    assert page.count("At first") == len(at_first.prompts) == 2
    card = (RUN / "model" / "README.md").read_text()
    assert "first (simpo, 3 steps)" in card
    assert "**Base model**: base" in card
    assert main(["report", str(RUN)]) == 0
    assert (RUN / "report.html").read_text() == page


@pytest.mark.parametrize("stage", [0, 1])
def test_stopped_in_any_stage_it_goes_on_to_the_same_bits(
    here: Path, unbroken: Path, stage: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = [outcome_of(unbroken, RUN), outcome_of(unbroken, FIRST)]
    real, steps = Trainer.step, 0

    def stopped(trainer: Trainer, *given: Any) -> Row:
        nonlocal steps
        steps += 1
        if steps == 2 + 3 * stage:
            signal.raise_signal(signal.SIGTERM)
        return real(trainer, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopped)
        assert main(["train", "recipe.toml"]) == 130
    if stage == 0:
        with pytest.raises(RunError, match=r"has not come to its last stage.*tiltlm train --resume runs/run"):
            read_run(RUN)
    # It is not taken for a run that may be replaced.
    assert main(["train", "recipe.toml", "--run.name", "run"]) == 1
    capsys.readouterr()
    assert main(["train", "--resume", str(RUN)]) == 0
    assert ("nothing is left to do" in capsys.readouterr().out) == (stage == 1)
    assert [outcome_of(here, RUN), outcome_of(here, FIRST)] == whole


def test_a_finished_recipe_is_left_alone_and_another_one_is_refused(finished: Path) -> None:
    before = outcome_of(finished, RUN)
    assert main(["train", "--resume", str(RUN)]) == 0
    assert outcome_of(finished, RUN) == before
    Path("recipe.toml").write_text(COMMON + STAGES.replace("beta = 0.3", "beta = 0.2"))
    assert main(["train", "recipe.toml", "--resume", str(RUN)]) == 1
    assert outcome_of(finished, RUN) == before


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        ("beta = 0.3", "beta = 0.2", r"stage `second`: loss\.beta: 0\.3 then, 0\.2 now.*--allow loss\.beta"),
        ('"first"', '"other"', "stages: first, second then, other, second now"),
    ],
)
def test_stages_that_have_not_begun_are_compared_too(
    here: Path, then: str, now: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_undrawn(monkeypatch)
    _stop_in_the_first(here)
    Path("other.toml").write_text((COMMON + STAGES).replace(then, now))
    before = sorted(here.rglob("*"))
    with pytest.raises(RunError, match=words):
        tiltlm.train("other.toml", resume=RUN)
    assert sorted(here.rglob("*")) == before
    if "beta" in then:
        tiltlm.train("other.toml", resume=RUN, allow=["loss.beta"])
        assert read_run(RUN).settings["loss"]["beta"] == 0.2
        # The file of what was asked for knows of it.
        assert main(["train", "--resume", str(RUN)]) == 0


def test_stages_are_no_way_to_go_on_with_a_run_without_and_the_other_way_round(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_undrawn(monkeypatch)
    _stop_in_the_first(here)
    Path("none.toml").write_text(COMMON)
    with pytest.raises(RunError, match="stages: first, second then, none now"):
        tiltlm.train("none.toml", resume=RUN)
    RUN.rename("runs/staged")
    (RUN / "stages").mkdir(parents=True)
    (RUN / ".tiltlm-run").touch()
    with pytest.raises(RunError, match="stages: none then, first, second now"):
        tiltlm.train("recipe.toml", resume=RUN)


def test_a_run_that_was_moved_is_gone_on_with_and_looked_at(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "recipe.toml", "--comparison.prompts", "0"]) == 0
    before = weights(RUN)
    Path("elsewhere").mkdir()
    moved = Path("elsewhere/moved")
    RUN.rename(moved)
    assert main(["compare", str(moved), "--prompt", "Is 1 a number? Answer:"]) == 0
    assert main(["export", str(moved), "out", "--checkpoint", "last"]) == 0
    capsys.readouterr()
    assert main(["train", "--resume", str(moved)]) == 0
    assert capsys.readouterr().out.count("nothing is left to do") == 2
    assert same(weights(moved), before)


def test_while_an_earlier_stage_is_at_work_the_whole_run_is_kept_from_others(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_undrawn(monkeypatch)
    told: list[Row] = []

    def tries_to_replace(row: Row) -> None:
        if not told:
            with pytest.raises(RunError, match="another process is at work"):
                RunFolder.require_free(Path("runs"), "run", overwrite=True)
            told.append(row)

    settings = {"training": {"max_steps": 1}, "comparison": {"prompts": 0}, "model": {"path": "base"}}
    table = {**settings, "stage": [{"loss": {"name": "simpo"}}, {"loss": {"name": "ipo"}}]}
    tiltlm.train({**table, "data": {"train": "pairs.jsonl"}}, observers=[tries_to_replace])
    assert told and RUN.is_dir()


ADAPTED = """
[adapter]
kind = "lora"
targets = ["c_attn"]
"""


def test_an_adapter_that_is_handed_on_is_known_ahead(here: Path) -> None:
    """What another adapter, or an objective without one, would be refused for is said before the first stage."""
    recipe = load_recipe_of(COMMON + ADAPTED + STAGES)
    assert recipe.settings(0).adapter.targets == ("c_attn",)
    assert recipe.settings(1).adapter.kind == "none", "it is that of the model"
    assert [config.adapter.targets for _, config in recipe.seen_from_the_start()] == [("c_attn",)] * 2
    for more, words in (
        ("[stage.adapter]\nrank = 4\n", "an earlier stage trains an adapter"),
        ("[[stage]]\nname = 'third'\nloss = { name = 'tr_dpo' }\n", "averaging the factors"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_recipe_of(COMMON + ADAPTED + STAGES + more).ready()
    packed = COMMON + STAGES.replace('"first"', '"first"\nadapter = { kind = "lora" }', 1)
    seen = load_recipe_of(packed + "[stage.adapter]\nquantise = 'nf4'\n").ready().seen_from_the_start()
    assert [(config.adapter.kind, config.adapter.quantise) for _, config in seen] == [("lora", "none"), ("lora", "nf4")]


def test_data_given_in_python_are_not_put_in_the_place_of_a_stages_own(here: Path) -> None:
    table = {"stage": [{"loss": {"name": "simpo"}, "data": {"train": "pairs.jsonl"}}, {"loss": {"name": "ipo"}}]}
    with pytest.raises(ConfigError, match=r"data\.train: the stage `simpo` has its own"):
        tiltlm.train(table, train=[{"prompt": "a", "chosen": "b", "rejected": "c"}])


def load_recipe_of(text: str) -> Recipe:
    return recipe_from_dict(tomllib.loads(text))


def test_a_failing_objective_of_a_later_stage_is_known_before_the_first(here: Path) -> None:
    Path("my.py").write_text(
        "from tiltlm import LossOutput\n\ndef mine(scored, *, beta=0.1):\n"
        "    return LossOutput(scored.logps_N.detach(), scored.logps_N.detach())\n"
    )
    Path("own.toml").write_text(COMMON + STAGES + "[[stage]]\nname = 'own'\nloss = { name = 'my.py:mine' }\n")
    with pytest.raises(TiltlmError, match=r"stage `own`: the objective `my\.py:mine`"):
        tiltlm.train("own.toml")
    assert not RUN.exists()


def _stop_in_the_first(here: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        sends(signal.SIGTERM, 1, patch)
        assert main(["train", "recipe.toml"]) == 130


def test_rows_and_settings_given_in_python(here: Path) -> None:
    rows = [json.loads(line) for line in Path("pairs.jsonl").read_text().splitlines()]
    table = {
        "model": {"path": "base", "precision": "float32"},
        "training": {"max_steps": 1, "batch_pairs": 4},
        "comparison": {"prompts": 0},
        "stage": [{"loss": {"name": "simpo"}}, {"loss": {"name": "ipo"}}],
    }
    run = tiltlm.train(table, train=rows)
    assert [stage.name for stage in run.summary.earlier] == ["simpo"]
    assert run.summary.loss == "ipo"


def test_what_is_wrong_with_a_later_stage_is_said_before_the_first(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("recipe.toml").write_text(COMMON + STAGES + '[stage.data]\ntrain = "nowhere.jsonl"\n')
    assert main(["train", "recipe.toml"]) == 1
    assert "stage `second`" in capsys.readouterr().err
    assert not RUN.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[stage]]\nlosss = { name = 'ipo' }", "Did you mean `loss`"),
        ("[[stage]]\nloss = { name = 'ipo', bta = 1 }", "stage `ipo`.*Did you mean `beta`"),
        ("[[stage]]\nmodel = { path = 'x' }", "holds for all stages"),
        ("[stage]\nname = 'a'", r"\[\[stage\]\]"),
        ("[[stage]]\nloss = { name = 'ipo' }\n[[stage]]\nloss = { name = 'ipo' }", "two stages are called `ipo`"),
        ("[[stage]]\nname = 'a/b'", "one that a folder can have"),
        ("[[stage]]\nloss = 'ipo'", "write its options below"),
        ("[model]\nreference = 'x'\n[[stage]]\nname = 'a'", "the model that enters it"),
        ("[loss]\nbeta = 1.0\n[[stage]]\nloss = { name = 'ipo' }", r"loss\.beta has no effect, as every stage"),
    ],
)
def test_what_is_wrong_in_a_recipe(here: Path, text: str, words: str) -> None:
    Path("wrong.toml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        tiltlm.train("wrong.toml")


def test_a_flag_for_what_a_stage_sets_is_refused_and_others_hold_for_all(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "recipe.toml", "--training.learning-rate", "1e-5"]) == 2
    assert "the stage `first` has its own in the file" in capsys.readouterr().err
    assert main(["train", "recipe.toml", "--training.max-steps", "1", "--comparison.prompts", "0"]) == 0
    assert len(read_run(RUN).metrics.train) == len(read_run(FIRST).metrics.train) == 1


def test_a_stage_whose_folder_is_read_by_another_run_is_not_replaced(finished: Path) -> None:
    again = ["train", "--data.train", "pairs.jsonl", "--model.path", str(FIRST / "model"), "--run.name", "run"]
    assert main([*again, "--run.overwrite"]) == 1
    assert (FIRST / "model").is_dir()


def test_a_recipe_is_what_its_tables_say() -> None:
    recipe = recipe_from_dict({"stage": [{"loss": {"name": "ipo"}}, {"name": "b", "training": {"epochs": 2}}]})
    again = recorded_recipe(recipe.to_dict())
    assert [again.settings(n) for n in (0, 1)] == [recipe.settings(n) for n in (0, 1)]
    assert recipe.folder(0) == Path("runs/run/stages/1-ipo")
    assert recipe.folder(1) == Path("runs/run")
    assert recipe_from_dict({}) == Recipe(Config())
