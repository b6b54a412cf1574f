"""Whole small runs in float32 and in bfloat16, beside what another seed changes.

`numerics.py` runs this and writes its page. The seed decides the order of the pairs and nothing else here: training and
held-out pairs are the same.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from loss_trace import tiny_models
from machine import Circumstances
from tiltlm import demo
from tiltlm.config import Config, Precision, load_config
from tiltlm.model.embedded import embedded_model
from tiltlm.pipeline.reporter import LogReporter
from tiltlm.pipeline.run import train
from tiltlm.runs.estimates import Estimate
from tiltlm.runs.run_files import read_run

ARITHMETICS: tuple[Precision, ...] = ("float32", "bfloat16")
SEEDS = (0, 1)
TINY = ("llama",)
PAIRS = {"train": 48, "eval": 24}
"""How many of the demo's pairs, the first ones."""


@dataclass(frozen=True, slots=True)
class SmallRun:
    """One run. losses: of each step, in the arithmetic of training. The rest is of the saved model, in float32.

    changed: length of what training added to the weights, as a share of the length of the weights.
    """

    model: str
    arithmetic: str
    seed: int
    losses: list[float]
    held_out_loss: float
    margin: Estimate
    accuracy: float
    changed: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Two runs that differ in one thing: means over the pairs of runs that do.

    loss: absolute difference of the losses of a step. first_loss: at the first step alone.
    margin: absolute difference of the held-out margins.
    weights: length of the difference of the final weights, as a share of what training added to them.
    cosine: of the angle between what the two added.
    """

    model: str
    between: str
    pairs: int
    first_loss: float
    loss: float
    margin: float
    weights: float
    cosine: float


@dataclass(frozen=True, slots=True)
class RunsRecord:
    """Everything measured."""

    circumstances: Circumstances
    runs: list[SmallRun]
    differences: list[Difference]


@dataclass(frozen=True, slots=True, eq=False)
class _Trained:
    run: SmallRun
    change: np.ndarray


def measured_runs(where: Circumstances) -> Iterator[RunsRecord]:
    """A tiny random model and the demo's, with two seeds each, in both arithmetics: all there is after each model."""
    runs: list[SmallRun] = []
    differences: list[Difference] = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        # Models are those of the cache that is there; reference values are computed anew.
        embedded = embedded_model()
        for part, count in PAIRS.items():
            lines = (demo.FOLDER / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
            (scratch / f"{part}.jsonl").write_text("\n".join(lines[:count]), encoding="utf-8")
        models = {name: path for name, path in tiny_models(scratch) if name in TINY}
        os.environ["TILTLM_CACHE"] = str(scratch / "cache")
        for model, path in {**models, "SmolLM2-135M": embedded}.items():
            done = [_trained(model, path, arithmetic, seed, scratch) for seed in SEEDS for arithmetic in ARITHMETICS]
            runs += [one.run for one in done]
            differences += _differences(done)
            yield RunsRecord(where, runs, differences)


def _trained(name: str, model: Path, arithmetic: Precision, seed: int, scratch: Path) -> _Trained:
    config = _config(name, model, arithmetic, seed, scratch)
    # The result lies in files; what is said on the way is for people.
    with contextlib.redirect_stdout(sys.stderr):
        folder = train(config, ("python", *sys.argv), LogReporter()).folder
    files = read_run(folder)
    evaluation = files.evaluation
    assert evaluation is not None and evaluation.margin is not None and evaluation.figures.accuracy is not None
    change, before = _change(folder / "model", model)
    run = SmallRun(
        model=name,
        arithmetic=arithmetic,
        seed=seed,
        losses=[row.loss for row in files.metrics.train],
        held_out_loss=evaluation.figures.loss,
        margin=evaluation.margin,
        accuracy=evaluation.figures.accuracy,
        changed=float(np.linalg.norm(change)) / before,
    )
    print(f"{name} {arithmetic} seed {seed}: margin {run.margin.mean:+.4f}", file=sys.stderr, flush=True)
    return _Trained(run, change)


def _config(name: str, model: Path, arithmetic: Precision, seed: int, scratch: Path) -> Config:
    """The demo's settings without its answers; a larger learning rate for models that know nothing yet."""
    own = load_config(demo.CONFIG)
    rate, passes = (own.training.learning_rate, 1) if name == "SmolLM2-135M" else (1e-3, 2)
    steps = replace(own.training, learning_rate=rate, epochs=passes, batch_pairs=8, eval_every=0)
    return replace(
        own,
        run=replace(own.run, name=f"{name}-{arithmetic}-{seed}", directory=str(scratch / "runs"), seed=seed),
        model=replace(own.model, path=str(model), precision=arithmetic, device="cpu", save_dtype="float32"),
        data=replace(
            own.data, train=str(scratch / "train.jsonl"), eval=str(scratch / "eval.jsonl"), max_eval_pairs=None
        ),
        training=steps,
        comparison=replace(own.comparison, prompts=0, samples=0, temperature=1.0, extra_prompts=(), reward="none"),
    )


def _change(after: Path, before: Path) -> tuple[np.ndarray, float]:
    """What training added to all weights, one after another, and the length of what they were before it."""
    one, other = (_weights(folder) for folder in (after, before))
    change = torch.cat([(one[name] - other[name]).flatten() for name in sorted(one)])
    length = torch.cat([other[name].flatten() for name in sorted(one)]).double().norm()
    return change.numpy(), float(length)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def _differences(done: list[_Trained]) -> Iterator[Difference]:
    """float32 against bfloat16 of one seed, and one seed against another in each arithmetic."""
    pairs = list(itertools.combinations(done, 2))
    kinds = {
        "float32 and bfloat16, same seed": [(a, b) for a, b in pairs if a.run.seed == b.run.seed],
        **{
            f"two seeds, both {name}": [(a, b) for a, b in pairs if a.run.arithmetic == b.run.arithmetic == name]
            for name in ARITHMETICS
        },
    }
    for between, members in kinds.items():
        losses = np.array([np.abs(np.subtract(a.run.losses, b.run.losses)) for a, b in members])
        yield Difference(
            model=done[0].run.model,
            between=between,
            pairs=len(members),
            first_loss=float(losses[:, 0].mean()),
            loss=float(losses.mean()),
            margin=float(np.mean([abs(a.run.margin.mean - b.run.margin.mean) for a, b in members])),
            weights=float(np.mean([_apart(a.change, b.change) for a, b in members])),
            cosine=float(np.mean([_cosine(a.change, b.change) for a, b in members])),
        )


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.sqrt(np.linalg.norm(one) * np.linalg.norm(other)))


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
