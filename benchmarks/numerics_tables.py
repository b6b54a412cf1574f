"""Tables of docs/numerics.md, and its sections on gradients and on whole runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gradient_errors import ARITHMETICS, GradientRecord
from precision_runs import RunsRecord
from tiltlm.runs.estimates import Estimate
from tiltlm.runs.outcomes import Evaluation
from tiltlm.runs.schema import from_json

KINDS = ("all", "embeddings", "attention", "MLP", "norms", "output layer")


RECORDED = {"demo": "demo-bfloat16", "smollm2-hh": "smollm2-hh-bfloat16"}
"""Runs that are kept in both arithmetics, with one seed: folders of benchmarks/results."""


def table(header: str, rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    columns = header.split(" | ")
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def number(value: float) -> str:
    """Two digits."""
    return f"{value:.1e}" if value < 0.01 else f"{value:.3f}"


def gradient_section(record: GradientRecord) -> str:
    """What finite differences and the arithmetics say of gradients."""
    derivatives = [[d.model, d.objective, number(d.directions), number(d.weights)] for d in record.derivatives]
    found = {(e.model, e.objective, e.arithmetic, e.kind): e for e in record.errors}
    rows = []
    for model, objective in dict.fromkeys((e.model, e.objective) for e in record.errors):
        for arithmetic in ARITHMETICS:
            errors = [found.get((model, objective, arithmetic, kind)) for kind in KINDS]
            cosine = found[model, objective, arithmetic, "all"].cosine
            relative = [number(error.relative) if error is not None else "" for error in errors]
            rows.append([model, objective, arithmetic, f"{cosine:.6f}", *relative])
    about = f"{record.pairs} pairs of the demo, {record.tokens} tokens"
    return "\n".join(
        [
            GRADIENT_TEXT.format(about=about),
            table("model | objective | along random directions, worst | single weights, worst", derivatives),
            ERROR_TEXT,
            table(f"model | objective | arithmetic | cosine | {' | '.join(KINDS)}", rows),
        ]
    )


def _recorded(results: Path) -> list[list[str]]:
    rows = []
    for names in RECORDED.items():
        losses = []
        for name in names:
            lines = (results / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            train = [row for row in map(json.loads, lines) if row["kind"] == "train"]
            losses.append([row["loss"] for row in train])
        evaluations = [from_json(Evaluation, (results / name / "evaluation.json").read_bytes()) for name in names]
        apart = np.abs(np.array(losses[0]) - np.array(losses[1]))
        margins = [_interval(one.margin) for one in evaluations if one.margin is not None]
        accuracies = [f"{one.figures.accuracy:.3f}" for one in evaluations if one.figures.accuracy is not None]
        rows.append([names[0], str(len(apart)), number(apart.mean()), number(apart.max()), *margins, *accuracies])
    return rows


def _interval(estimate: Estimate) -> str:
    if estimate.interval is None:
        return f"{estimate.mean:+.4f}"
    return f"{estimate.mean:+.4f} [{estimate.interval[0]:+.4f}, {estimate.interval[1]:+.4f}]"


def runs_section(record: RunsRecord | None, results: Path) -> str:
    """What float32 and bfloat16 come to in whole runs: those kept in `results`, and those beside other seeds."""
    header = (
        "run | steps | loss of a step apart, mean | worst | held-out margin, float32 | bfloat16 | accuracy, float32 | "
        "bfloat16"
    )
    kept = [RECORDED_TEXT, table(header, _recorded(results))]
    return "\n".join(kept + ([] if record is None else _measured(record)))


def _measured(record: RunsRecord) -> list[str]:
    runs = [
        [
            run.model,
            run.arithmetic,
            str(run.seed),
            f"{run.losses[0]:.4f}",
            f"{run.losses[-1]:.4f}",
            f"{run.held_out_loss:.4f}",
            _interval(run.margin),
            f"{run.accuracy:.3f}",
            number(run.changed),
        ]
        for run in record.runs
    ]
    differences = [
        [one.model, one.between, *map(number, (one.first_loss, one.loss, one.margin, one.weights)), f"{one.cosine:.3f}"]
        for one in record.differences
    ]
    return [
        RUNS_TEXT,
        table(
            "model | arithmetic | seed | first loss | last loss | held-out loss | held-out margin, 95% | accuracy | "
            "weights changed by",
            runs,
        ),
        DIFFERENCE_TEXT,
        table(
            "model | between | first loss | loss of a step | held-out margin | weights | cosine of the changes",
            differences,
        ),
    ]


GRADIENT_TEXT = """
## Gradients

The gradient of the mean loss by the weights, in float64, as training takes it (packed rows, several micro-batches, the
head's own backward pass) against central differences of fourth order of the loss in float64. Errors are shares: along
random directions of all weights, of the root mean square of the derivatives; of single weights, of the largest
derivative in their tensor. Small random models of 4 layers have a reference near the policy; SmolLM2-135M is at its
start ({about}). What is left is what differences leave: curvature along directions, rounding at
single weights.
"""

ERROR_TEXT = """
The same gradients in the arithmetics of training against those in float64: length of the difference as a share of the
gradient's length, for all weights and by kind of layer, and the cosine of the angle between them. Tied embeddings
count as embeddings.
"""

RUNS_TEXT = """
Beside what another seed changes: the first 48 pairs of the demo in steps of 8, 24 held out; a random Llama of two
layers twice through them at a learning rate of 1e-3 (SmolLM2-135M once at 2e-5, where it is listed). The seed decides
the order of the pairs and nothing else. Losses on the way are in the arithmetic of training; what stands right of them
is of the saved model, in float32.
"""

DIFFERENCE_TEXT = """
What bfloat16 changes beside what another seed changes: absolute differences; distance of the final weights as a share
of what training added to them; and the cosine of the angle between what two runs added. Steps of another seed see other
pairs.
"""

RECORDED_TEXT = """
## Whole runs

The runs that the READMEs quote were made in both arithmetics with one seed: all of the demo, and Anthropic HH on
SmolLM2-135M ([`benchmarks/results`](../benchmarks/results)).
"""
