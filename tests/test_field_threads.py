"""Faults that filled other trainers' issue trackers, where no test of the parts would show them: on whole small runs.

docs/reliability.md lists all such threads, each with its test; most stand beside the part that they are about.
"""

from __future__ import annotations

import ast
import dataclasses
import gc
from pathlib import Path

import pytest
import torch
from tiny_folders import save_tiny
from tiny_runs import (
    bound,
    examples_for,
    moved,
    packed,
    referenced,
    sequence,
    tiny_model,
    trainer,
    write_model,
    write_pairs,
)
from transformers import GPT2LMHeadModel

from tiltlm.cli import main
from tiltlm.config import Config, TrainingConfig, load_config
from tiltlm.model import reference as reference_module
from tiltlm.model.finding import ModelSource
from tiltlm.model.scorer import Scorer
from tiltlm.model.weights import load_model
from tiltlm.objectives import OBJECTIVES
from tiltlm.pipeline.reporter import LogReporter
from tiltlm.pipeline.run import train
from tiltlm.runs.rows import EvalRow, TrainRow
from tiltlm.runs.run_files import RunFiles, read_run
from tiltlm.training.step_plans import Referenced
from tiltlm.training.stop import StopRequest

SOURCES = Path(__file__).parents[1] / "src" / "tiltlm"
OPTIONS = ["--data.train", "train.jsonl", "--data.eval", "held_out.jsonl", "--data.max-length", "64"]
OPTIONS += ["--model.path", "model", "--training.batch-pairs", "4", "--comparison.prompts", "0"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model that has dropout, and pairs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    write_model(tmp_path / "model")
    lines = write_pairs(tmp_path / "train.jsonl", 12).read_text().splitlines()
    (tmp_path / "train.jsonl").write_text("\n".join(lines[:8]))
    (tmp_path / "held_out.jsonl").write_text("\n".join(lines[8:]))
    return tmp_path


def run(name: str, *options: str) -> RunFiles:
    assert main(["train", *OPTIONS, "--run.name", name, *options]) == 0
    return read_run(Path("runs") / name)


# pad = eos


def test_the_end_of_an_earlier_answer_has_a_gradient_though_it_is_the_padding_token(tmp_path: Path) -> None:
    """transformers builds the table of embeddings with a padding index, whose row gets none."""
    folder = save_tiny(tmp_path / "padded", pad_token_id=1)
    scorer = Scorer(load_model(ModelSource(str(folder), True, False), torch.device("cpu")))
    scorer(packed([sequence([5, 6, 1, 7, 8, 9], 4)])).sum().backward()
    embeddings = scorer.model.get_input_embeddings()
    assert isinstance(embeddings, torch.nn.Embedding) and embeddings.weight.grad is not None
    assert embeddings.weight.grad[[5, 6, 1, 7]].abs().amax(dim=1).min() > 0


# The reference (direct-preference-optimization#34, trl#744)


def test_dropout_is_off_for_policy_and_reference(here: Path) -> None:
    model = load_model(ModelSource(str(here / "model"), True, False), torch.device("cpu"))
    dropouts = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    assert dropouts and all(module.p > 0 for module in dropouts)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(("precision", "near"), [("float32", 1e-6), ("bfloat16", 2e-4)])
def test_before_the_first_step_rewards_are_nothing_and_the_loss_is_ln_2(precision: str, near: float) -> None:
    """In bfloat16 another batch may round otherwise; a reference in float32 would be further away."""
    first = run("run", "--model.precision", precision, "--training.max-steps", "1").metrics.train[0]
    assert first.loss == pytest.approx(0.693147, abs=near)
    assert first.chosen_reward == pytest.approx(0, abs=near)
    assert first.rejected_reward == pytest.approx(0, abs=near)


# Stale caches (trl#1962, trl#1107)


def test_another_run_on_the_same_model_and_pairs_computes_no_reference_value_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither for training nor for held-out pairs, whatever the other settings; and they are the same values."""
    first = run("first", "--model.precision", "bfloat16")

    def compute(*arguments: object) -> None:
        raise AssertionError("computed although it is in the cache")

    monkeypatch.setattr(reference_module, "passes", compute)
    again = run("again", "--model.precision", "bfloat16")
    assert [row.loss for row in again.metrics.train] == [row.loss for row in first.metrics.train]
    other = ["--loss.beta", "0.5", "--training.learning-rate", "1e-4", "--run.seed", "3", "--training.epochs", "2"]
    assert run("other", "--model.precision", "bfloat16", *other).evaluation is not None


# Memory (trl#3168, LLaMA-Factory#798)


def models() -> int:
    """How many models are alive."""
    gc.collect()
    return sum(issubclass(type(one), GPT2LMHeadModel) for one in gc.get_objects())


def test_while_it_trains_there_is_one_model(here: Path) -> None:
    seen: list[int] = []

    def count(row: TrainRow | EvalRow) -> None:
        seen.append(models())

    before = models()
    Path("settings.toml").write_text(
        '[data]\ntrain = "train.jsonl"\neval = "held_out.jsonl"\nmax_length = 64\n[model]\npath = "model"\n'
        "[comparison]\nprompts = 0\nsamples = 0\n"
    )
    train(load_config(Path("settings.toml")), ("test",), LogReporter(), (count,))
    assert seen and {number - before for number in seen} == {1}


# Figures of an accumulated step (VeOmni PR#1130, trl#2456)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_row_says_the_same_whatever_the_micro_batches(here: Path, name: str) -> None:
    rows = []
    for budget in (4096, 20):
        scorer, objective = moved(Scorer(tiny_model("gpt2")), 0.05), bound(name)
        columns = examples_for(objective.needs, 7)
        if objective.needs.reference:
            examples = referenced(Scorer(tiny_model("gpt2")), columns, here)
        else:
            examples = Referenced(columns, None)
        training = TrainingConfig(batch_pairs=7, micro_batch_tokens=budget, learning_rate=1e-3)
        made = trainer(scorer, examples, training=training, loss=objective)
        assert (len(made.plan_of(0).micro_batches) > 1) == (budget == 20)
        with StopRequest() as stop:
            rows.append([made.step(made.plan_of(0), stop) for _ in range(2)])
    for one, other in zip(*rows, strict=True):
        for field in dataclasses.fields(TrainRow):
            if field.name not in ("seconds", "tokens"):
                wanted, found = getattr(one, field.name), getattr(other, field.name)
                assert found == (wanted if wanted is None else pytest.approx(wanted, rel=1e-4, abs=1e-4)), field.name


# Silently ignored options (ms-swift, open-instruct, TRL)


def attributes_read() -> set[str]:
    """Names of all attributes that the program outside `config` reads, and all texts by which it may read one."""
    found = set()
    for path in SOURCES.rglob("*.py"):
        if "config" in path.relative_to(SOURCES).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.add(node.attr)
    return found


def test_every_option_is_read_by_the_program() -> None:
    read = attributes_read()
    config = Config()
    for section in dataclasses.fields(config):
        own = getattr(config, section.name)
        if section.name == "loss":
            continue  # below: each objective reads its own settings
        for option in dataclasses.fields(own):
            assert option.name in read, f"{section.name}.{option.name}"
    for name, objective in OBJECTIVES.items():
        for option in dataclasses.fields(objective.settings):
            assert option.name in read, f"loss.{option.name} of {name}"
