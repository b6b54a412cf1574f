"""Tables of docs/numerics.md, and its sections on gradients and on whole runs."""

from __future__ import annotations

from collections.abc import Sequence

from gradient_errors import ARITHMETICS, GradientRecord
from precision_runs import RunsRecord

KINDS = ("all", "embeddings", "attention", "MLP", "norms", "output layer")


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


def runs_section(record: RunsRecord) -> str:
    """What float32 and bfloat16 come to in whole runs."""
    runs = [
        [
            run.model,
            run.arithmetic,
            str(run.seed),
            f"{run.losses[0]:.4f}",
            f"{run.losses[-1]:.4f}",
            f"{run.held_out_loss:.4f}",
            f"{run.margin.mean:+.4f}"
            + (f" [{run.margin.interval[0]:+.4f}, {run.margin.interval[1]:+.4f}]" if run.margin.interval else ""),
            f"{run.accuracy:.3f}",
            number(run.changed),
        ]
        for run in record.runs
    ]
    differences = [
        [
            d.model,
            d.between,
            number(d.first_loss),
            number(d.loss),
            number(d.margin),
            number(d.weights),
            f"{d.cosine:.3f}",
        ]
        for d in record.differences
    ]
    return "\n".join(
        [
            RUNS_TEXT,
            table(
                "model | arithmetic | seed | first loss | last loss | held-out loss | held-out margin, 95% | "
                "accuracy | weights changed by",
                runs,
            ),
            DIFFERENCE_TEXT,
            table(
                "model | between | first loss | loss of a step | held-out margin | weights | cosine of the changes",
                differences,
            ),
        ]
    )


GRADIENT_TEXT = """
## Gradients

The gradient of the mean loss by the weights, in float64, as training takes it (packed rows, several micro-batches, the
head's own backward pass) against central differences of fourth order of the loss in float64. Errors are shares: along
random directions of all weights, of the root mean square of the derivatives; of single weights, of the largest
derivative in their tensor. Small random models of 4 layers have a reference near the policy; SmolLM2-135M is at its
start ({about}). What is left is what differences leave: curvature along directions, rounding at single weights.
"""

ERROR_TEXT = """
The same gradients in the arithmetics of training against those in float64: length of the difference as a share of the
gradient's length, for all weights and by kind of layer, and the cosine of the angle between them. Tied embeddings
count as embeddings.
"""

RUNS_TEXT = """
## Whole runs

The first 48 pairs of the demo in steps of 8, 24 held out; SmolLM2-135M once through them at a learning rate of 2e-5,
and a random Llama of two layers four times at 1e-3. The seed decides the order of the pairs and nothing else. Losses on
the way are in the arithmetic of training; what stands right of them is of the saved model, in float32.
"""

DIFFERENCE_TEXT = """
What bfloat16 changes beside what another seed changes: absolute differences; distance of the final weights as a share
of what training added to them; and the cosine of the angle between what two runs added. Steps of another seed see other
pairs.
"""
