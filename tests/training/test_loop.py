"""The loop: layout changes nothing, the numbers are the paper's, and it never trains on nonsense."""

from __future__ import annotations

import copy
import json
import math
import os
import signal
from pathlib import Path

import pytest
import torch
from tiny_models import one_at_a_time
from tiny_runs import pairs, referenced, tiny_model, trainer

from tiltlm.config import LossConfig, TrainingConfig
from tiltlm.errors import ConfigError, NonFiniteError
from tiltlm.model.loading import checkpoint_activations
from tiltlm.model.scorer import PairScorer
from tiltlm.runs.rows import EvalRow, TrainRow
from tiltlm.statistics import wilson_interval
from tiltlm.training.held_out import exact_logps
from tiltlm.training.loop import StopRequest, TrainingOutcome
from tiltlm.training.metrics import MetricsLog

SETTINGS = TrainingConfig(epochs=2, batch_pairs=4, learning_rate=1e-3, eval_every=2, gradient_clip=0)


def run(
    tmp_path: Path, training: TrainingConfig, loss: LossConfig | None = None, checkpointed: bool = False
) -> tuple[TrainingOutcome, PairScorer]:
    scorer = PairScorer(tiny_model())
    train, held_out = referenced(scorer, pairs(10), tmp_path), referenced(scorer, pairs(5, seed=1), tmp_path)
    if checkpointed:
        checkpoint_activations(scorer.model)
    with MetricsLog(tmp_path / "metrics.jsonl") as log, StopRequest() as stop:
        outcome = trainer(scorer, training, loss).train(train, held_out, log, stop, lambda row: None)
    return outcome, scorer


def losses(outcome: TrainingOutcome) -> list[float]:
    return [row.loss for row in outcome.train_rows]


def test_it_learns_and_records(tmp_path: Path) -> None:
    outcome, _ = run(tmp_path, SETTINGS)
    assert outcome.completed
    assert losses(outcome)[0] == pytest.approx(math.log(2), abs=1e-5)
    assert [row.examples for row in outcome.train_rows] == [4, 4, 2, 4, 4, 2]
    assert [row.step for row in outcome.eval_rows] == [0, 2, 4, 6]
    assert outcome.eval_rows[0].accuracy == pytest.approx(0.5, abs=0.5)
    assert outcome.train_rows[-1].margin > 0.1
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert "".join(row["kind"][0] for row in rows) == "ettettette"


def test_scores_of_pairs_come_in_the_order_of_the_pairs(tmp_path: Path) -> None:
    scorer = PairScorer(tiny_model())
    items = referenced(scorer, pairs(9), tmp_path)
    logps_P2 = exact_logps(scorer, [item.pair for item in items], token_budget=45)
    with torch.no_grad():
        for place, side in enumerate(("chosen", "rejected")):
            wanted = one_at_a_time(scorer.model, [getattr(item.pair, side) for item in items])
            assert logps_P2[:, place] == pytest.approx(wanted.tolist(), abs=1e-4)


def test_pairs_of_one_prompt_do_not_make_the_accuracy_more_certain(tmp_path: Path) -> None:
    scorer = PairScorer(tiny_model())
    once, often = (referenced(scorer, [pair for _ in range(k) for pair in pairs(6)], tmp_path) for k in (1, 5))
    with torch.no_grad():
        scorer.model.lm_head.weight += torch.randn_like(scorer.model.lm_head.weight)  # no pair is near a tie
    rows = [trainer(scorer, TrainingConfig()).evaluate(items, 1, 1.0) for items in (once, often)]
    assert [row.examples for row in rows] == [6, 30]
    assert rows[0].accuracy_interval == pytest.approx(wilson_interval(6 * rows[0].accuracy, 6))
    assert rows[1].accuracy_interval == pytest.approx(rows[0].accuracy_interval)


@pytest.mark.parametrize("change", [{"micro_batch_tokens": 20}, {"micro_batch_tokens": 45}])
def test_micro_batches_change_nothing(tmp_path: Path, change: dict[str, int]) -> None:
    small = TrainingConfig(**{**vars_of(SETTINGS), **change})
    whole, first = run(tmp_path, SETTINGS)
    cut, second = run(tmp_path, small)
    batch = referenced(first, pairs(10), tmp_path)[:4]
    assert len(trainer(second, small).micro_batches(batch)) > len(trainer(first, SETTINGS).micro_batches(batch)) == 1
    assert losses(cut) == pytest.approx(losses(whole), abs=2e-5)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=3e-4)


def vars_of(config: TrainingConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def test_activation_checkpointing_changes_nothing(tmp_path: Path) -> None:
    plain, _ = run(tmp_path, SETTINGS)
    recomputed, _ = run(tmp_path, SETTINGS, checkpointed=True)
    assert losses(recomputed) == losses(plain)


def test_activation_checkpointing_recomputes() -> None:
    model = tiny_model()
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    model.model.layers[0].mlp.register_forward_pre_hook(count)
    checkpoint_activations(model)
    model(torch.tensor([[1, 5, 6]])).logits.sum().backward()
    assert calls == 2
    with pytest.raises(ConfigError, match="no effect"):
        checkpoint_activations(torch.nn.Linear(2, 2))


def test_same_seed_same_trace(tmp_path: Path) -> None:
    assert losses(run(tmp_path, SETTINGS)[0]) == losses(run(tmp_path, SETTINGS)[0])


def test_one_step_is_the_papers_gradient(tmp_path: Path) -> None:
    """One SGD-like step by hand: mean over pairs of -log sigmoid(beta h), from stock one-sequence passes."""
    scorer = PairScorer(tiny_model())
    given = pairs(3)
    items = referenced(scorer, given, tmp_path)
    oracle = copy.deepcopy(scorer.model)
    maker = trainer(scorer, TrainingConfig(batch_pairs=3, gradient_clip=0))
    optimizer = torch.optim.SGD(scorer.parameters(), lr=0.5)
    row = maker._step(optimizer, items, 1, 1.0, StopRequest())

    chosen = one_at_a_time(oracle, [pair.chosen for pair in given])
    rejected = one_at_a_time(oracle, [pair.rejected for pair in given])
    margin = 0.1 * (chosen - rejected - (chosen - rejected).detach())
    loss = -torch.nn.functional.logsigmoid(margin).mean()
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in oracle.parameters() if p.grad is not None])
    assert row.loss == pytest.approx(loss.item(), abs=1e-5)
    assert row.gradient_norm == pytest.approx(norm.item(), rel=1e-3)
    with torch.no_grad():
        for parameter in oracle.parameters():
            parameter -= 0.5 * parameter.grad
    for trained, expected in zip(scorer.model.parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(trained, expected, rtol=0, atol=1e-4)


def test_clipping_bounds_the_step_and_reports_the_full_norm(tmp_path: Path) -> None:
    scorer = PairScorer(tiny_model())
    items = referenced(scorer, pairs(3), tmp_path)
    before = [p.detach().clone() for p in scorer.parameters()]
    maker = trainer(scorer, TrainingConfig(batch_pairs=3, gradient_clip=1e-3))
    row = maker._step(torch.optim.SGD(scorer.parameters(), lr=1.0), items, 1, 1.0, StopRequest())
    after = [p.detach() for p in scorer.parameters()]
    moved = math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(before, after, strict=True)))
    assert row.gradient_norm > 1e-2
    assert moved == pytest.approx(1e-3, rel=1e-2)


def test_ipo_and_conservative_losses_train(tmp_path: Path) -> None:
    ipo, _ = run(tmp_path, SETTINGS, LossConfig(name="ipo", beta=0.5))
    assert losses(ipo)[0] == pytest.approx(1.0, abs=1e-4)
    assert losses(ipo)[-1] < 0.9
    smoothed, _ = run(tmp_path, SETTINGS, LossConfig(label_smoothing=0.2))
    assert losses(smoothed)[0] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_optimizers_and_schedules(tmp_path: Path, optimizer: str, schedule: str) -> None:
    settings = {**vars_of(SETTINGS), "optimizer": optimizer, "schedule": schedule, "warmup_steps": 2}
    outcome, _ = run(tmp_path, TrainingConfig(**settings))
    rates = [row.learning_rate / SETTINGS.learning_rate for row in outcome.train_rows]
    after = {"constant": [1, 1, 1, 1], "linear": [1, 0.75, 0.5, 0.25], "cosine": [1, 0.853553, 0.5, 0.146447]}
    assert rates == pytest.approx([0.5, 1.0, *after[schedule]], abs=1e-6)


def test_max_steps_goes_round_the_data(tmp_path: Path) -> None:
    settings = TrainingConfig(**{**vars_of(SETTINGS), "max_steps": 7})
    outcome, _ = run(tmp_path, settings)
    assert len(outcome.train_rows) == 7
    assert outcome.eval_rows[-1].step == 7


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_non_finite_numbers_stop_before_the_weights_change(tmp_path: Path, broken: str) -> None:
    scorer = PairScorer(tiny_model())
    items = referenced(scorer, pairs(4), tmp_path)
    if broken == "loss":
        token = int(items[2].pair.chosen.ids[-2])
        with torch.no_grad():
            scorer.model.model.embed_tokens.weight[token] = float("nan")
    else:
        scorer.model.model.norm.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = [p.detach().clone() for p in scorer.parameters()]
    maker = trainer(scorer, TrainingConfig(batch_pairs=4))
    with pytest.raises(NonFiniteError, match=f"the {broken} is not finite.*pair 2") as error:
        maker._step(torch.optim.SGD(scorer.parameters(), lr=1.0), items, 3, 1.0, StopRequest())
    assert "step 3" in str(error.value)
    for old, new in zip(before, scorer.parameters(), strict=True):
        assert torch.equal(old.nan_to_num(7.0), new.nan_to_num(7.0))


def test_ctrl_c_stops_after_the_step(tmp_path: Path) -> None:
    scorer = PairScorer(tiny_model())
    items = referenced(scorer, pairs(10), tmp_path)

    def interrupt(row: TrainRow | EvalRow) -> None:
        if isinstance(row, TrainRow) and row.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with MetricsLog(tmp_path / "metrics.jsonl") as log, StopRequest() as stop:
        outcome = trainer(scorer, SETTINGS).train(items, items, log, stop, interrupt)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert not outcome.completed
    assert len(outcome.train_rows) == 2
