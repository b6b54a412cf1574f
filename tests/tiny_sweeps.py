"""Sweeps over a tiny model that last a second: for tests."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tiny_runs import write_model

from tiltlm.config import (
    CheckpointConfig,
    ComparisonConfig,
    Config,
    DataConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
)
from tiltlm.config.sweep_plan import SweepPlan
from tiltlm.config.sweeping import Values
from tiltlm.pipeline.reporter import LogReporter
from tiltlm.pipeline.sweeps.sweep import Sweep, start_sweep

GOOD, BAD = ("great", "good", "happy", "fine", "love"), ("bad", "awful", "sad", "hate", "no")
STEPS = 4


def prepare(here: Path) -> Path:
    """A folder with a tiny model and pairs whose chosen answers are happier, mostly; returns it."""
    write_model(here / "m")
    draw = random.Random(0)

    def text(share: float) -> str:
        return " " + " ".join(draw.choice(GOOD if draw.random() < share else BAD) for _ in range(2))

    rows = [{"prompt": f"Day {n} was", "chosen": text(0.7), "rejected": text(0.3)} for n in range(40)]
    (here / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return here


def settings(here: Path, **training: Any) -> Config:
    """Four steps in float32, evaluated at every second."""
    return Config(
        run=RunConfig(directory=str(here / "runs"), name="sweep"),
        model=ModelConfig(path=str(here / "m"), precision="float32"),
        data=DataConfig(train=str(here / "pairs.jsonl"), eval_fraction=0.4),
        training=TrainingConfig(
            **{"max_steps": STEPS, "batch_pairs": 4, "eval_every": 2, "learning_rate": 1e-2, **training}
        ),
        checkpoint=CheckpointConfig(every_steps=1, every_minutes=0),
        comparison=ComparisonConfig(prompts=0),
    )


def swept(here: Path, values: Mapping[str, Values], name: str = "sweep", **given: Any) -> Sweep:
    """A whole sweep over these values."""
    base = settings(here)
    plan = SweepPlan(replace(base, run=replace(base.run, name=name)), values)
    return start_sweep(plan, ("tiltlm", "sweep"), LogReporter(), **given)
