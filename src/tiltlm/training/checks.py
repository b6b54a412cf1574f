"""Checks on examples of the first real batch, before any weight changes: a run that starts wrong does not start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedSequence
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.distributed.sharding import opened
from tiltlm.errors import SelfCheckError
from tiltlm.model.fused_layers import stock_layers
from tiltlm.model.scorer import Scorer, sequence_logps
from tiltlm.model.token_values import TokenValues
from tiltlm.objectives.interface import MISMATCHED, Scored, sides
from tiltlm.plan.batches import MicroBatch, Plan
from tiltlm.runs.outcomes import Check
from tiltlm.training.loop import Trainer
from tiltlm.training.losses import agreeing

LAYOUT_TOLERANCE = 1e-4
"""How far two layouts of the same sequence may differ in float32, in nats a token: the order of sums, and nothing else.
"""

NONSENSE = 1.0
"""Rounding noise beyond which an arithmetic computes something else, in nats a token."""

NOISE_FACTOR = 8.0
"""How many times the rounding noise policy and reference may differ on average, before training."""


@dataclass(frozen=True, slots=True)
class _Result:
    """A check's outcome, and what a failure probably means."""

    check: Check
    explanation: str


def run_checks(start: Trainer, tokenizer: ExampleTokenizer, starts_at_reference: bool = True) -> list[Check]:
    """All checks, on the examples of the first step; of several ranks each makes all of them.

    Args:
        start: before its first step.
        tokenizer: the one that made them.
        starts_at_reference: whether the policy is the reference before the first step.

    Raises:
        SelfCheckError: at least one failed; the message says which, with numbers and the likely cause.
    """
    first = start.plan_of.of_all_ranks(0)
    examples = [start.train_examples.columns[e] for batch in first.micro_batches for e in batch.examples.tolist()]
    sequences = [
        sequence
        for example in examples
        for sequence, label in zip(example.sequences, example.labels, strict=True)
        if label != MISMATCHED
    ]
    results = [_one_bos(sequences, tokenizer), _eos_present(sequences, tokenizer)]
    with opened(start.scorer):
        results += _numbers(start, first, starts_at_reference)
    failed = [result for result in results if not result.check.passed]
    if failed:
        lines = [f"{result.check.name}: {result.check.detail}. {result.explanation}" for result in failed]
        raise SelfCheckError("the start-up check failed. " + " ".join(lines))
    return [result.check for result in results]


def _result(name: str, passed: bool, detail: str, explanation: str) -> _Result:
    return _Result(Check(name, passed, detail), explanation)


def _one_bos(sequences: Sequence[TokenizedSequence], tokenizer: ExampleTokenizer) -> _Result:
    bos, wanted = tokenizer.tokenizer.bos_token_id, tokenizer.adds_bos
    doubled = missing = within = 0
    for sequence in sequences:
        starts = sequence.ids[0] == bos
        twice = bool(starts and len(sequence.ids) > 1 and sequence.ids[1] == bos)
        doubled += twice
        missing += bool(wanted and not starts)
        # Some templates begin every turn with it, so it is not wrong in itself; the notes say where the data has it.
        within += bool(wanted and not twice and (sequence.ids[1:] == bos).any())
    lack = f"{missing} of {len(sequences)} sequences lack it" if wanted else "the tokenizer adds none"
    also = f", {within} have another further on" if within else ""
    return _result(
        "one BOS",
        doubled == missing == 0,
        f"{lack}, {doubled} have it twice{also}",
        "Text that already holds the BOS token was probably given to a tokenizer that adds one.",
    )


def _eos_present(given: Sequence[TokenizedSequence], tokenizer: ExampleTokenizer) -> _Result:
    # A completion that was cut, here or before, does not end where the answer did.
    sequences = [sequence for sequence in given if sequence.ended and not sequence.tokens_cut]
    cut = f"; {len(given) - len(sequences)} were cut" if len(sequences) < len(given) else ""
    ended = sum(int(sequence.ids[-1]) in tokenizer.terminators for sequence in sequences)
    if tokenizer.config.eos == "as-is":
        return _result("EOS", True, f"data.eos is as-is, {ended} of {len(sequences)} completions end with it{cut}", "")
    return _result(
        "EOS",
        ended == len(sequences),
        f"{ended} of {len(sequences)} completions end with it{cut}",
        "Every completion should end with one under data.eos `append`; this is a defect of tiltlm, please report it.",
    )


@torch.no_grad()
def _numbers(start: Trainer, first: Plan, starts_at_reference: bool) -> list[_Result]:
    columns = start.train_examples.columns
    numbers = np.concatenate([batch.examples for batch in first.micro_batches])
    by_length = numbers[np.argsort(_tokens(columns, numbers), kind="stable")]
    sample = by_length[sorted({0, len(numbers) // 2, len(numbers) - 1})]
    # Room for all of them in one batch: no row is longer than all tokens, and there is no row without a sequence.
    whole = int(_tokens(columns, sample).sum() * (columns.members[sample + 1] - columns.members[sample]).sum())
    planned = start.train_examples.plan(sample, whole, start.scorer.layout)
    (batch,) = (one.to(start.scorer.device) for one in planned.micro_batches)
    exact = values = start.objective.values(start.scorer, batch, torch.float32)
    results = [_layout(start.scorer, columns, batch, exact.logps_S)]
    tolerance = LAYOUT_TOLERANCE
    if start.precision is not torch.float32:
        values = start.objective.values(start.scorer, batch, start.precision)
        rounding, noise = _rounding(start, batch, values, exact)
        results.append(rounding)
        tolerance = max(tolerance, NOISE_FACTOR * noise)
    if start.objective.needs.reference:
        scored = start.objective.scored([batch], [values])
        results.append(_first_loss(start, planned, scored, tolerance, starts_at_reference))
    return results


def _tokens(columns: TokenColumns, examples: np.ndarray) -> np.ndarray:
    """Tokens of all sequences of each example."""
    tokens: np.ndarray = columns.bounds[columns.members[examples + 1]] - columns.bounds[columns.members[examples]]
    return tokens


def _layout(scorer: Scorer, columns: TokenColumns, batch: MicroBatch, exact_S: Tensor) -> _Result:
    """Packed and shared against stock transformers, one sequence at a time with its own full logits, in float32."""
    fast_N = sequence_logps(exact_S, batch)
    sequences = [sequence for e in batch.examples.tolist() for sequence in columns[e].sequences]
    largest = 0.0
    for fast, sequence in zip(fast_N.tolist(), sequences, strict=True):
        ids = torch.from_numpy(sequence.ids.astype(np.int64)).to(scorer.device)
        with stock_layers(scorer.model), torch.compiler.set_stance("force_eager"):
            logits = scorer.model(input_ids=ids[None, :-1], use_cache=False).logits[0, sequence.first_scored - 1 :]
        logps = (logits.float() / scorer.transform.temperature).log_softmax(-1)
        slow = logps.gather(-1, ids[sequence.first_scored :, None]).sum()
        largest = max(largest, abs(fast - float(slow)) / sequence.scored_tokens)
    layout = "packed with shared prompts" if scorer.layout.trees else "one sequence a row"
    limit = LAYOUT_TOLERANCE / min(scorer.transform.temperature, 1.0)  # logits, and what is rounded of them, grow by it
    return _result(
        "fast path equals slow path",
        largest <= limit,
        f"{layout}, at most {largest:.1e} nats a token from stock transformers in float32 (limit {limit:.0e})",
        "This architecture does something to its logits or positions that tiltlm does not know; please report it.",
    )


def _rounding(start: Trainer, batch: MicroBatch, rounded: TokenValues, exact: TokenValues) -> tuple[_Result, float]:
    """What the arithmetic of training rounds away of the same numbers: measured and said, and no reason to stop."""
    rounded_S, exact_S = rounded.logps_S, exact.logps_S
    per_token = float((rounded_S - exact_S).abs().mean())
    per_completion = float(sequence_logps(rounded_S - exact_S, batch).abs().mean())
    name = str(start.precision).removeprefix("torch.")
    result = _result(
        f"noise of {name}",
        per_token < NONSENSE,
        f"{per_token:.2g} nats a token, {per_completion:.2g} a completion"
        f"{_noise_of_margins(start, batch, rounded, exact)}, on average",
        f"In {name} this model computes something else than in float32: set model.precision to float32.",
    )
    return result, per_token


def _noise_of_margins(start: Trainer, batch: MicroBatch, rounded: TokenValues, exact: TokenValues) -> str:
    """What it comes to in the margin of a pair's implicit rewards, in words; empty where there are no pairs."""
    if start.objective.needs.unit != "pair":
        return ""
    noisy_P, exact_P = (_margins(start, batch, values) for values in (rounded, exact))
    return f", {float((noisy_P - exact_P).abs().mean()):.2g} in an implicit reward margin"


def _margins(start: Trainer, batch: MicroBatch, values: TokenValues) -> Tensor:
    chosen_P, rejected_P = sides(start.objective(start.objective.scored([batch], [values])).rewards_N)
    return chosen_P - rejected_P


def _first_loss(start: Trainer, planned: Plan, scored: Scored, tolerance: float, starts_at_reference: bool) -> _Result:
    """Before training, policy and reference agree, so the loss is what the objective gives for equal arguments."""
    objective, units = start.objective, start.objective.units(planned)
    loss, wanted = (float(objective(given).losses_U.sum()) / units for given in (scored, agreeing(scored)))
    per_token = float(scored.log_ratios().abs().sum() / scored.tokens_N.sum())
    value = "ln 2" if math.isclose(wanted, math.log(2), rel_tol=1e-6) else f"{wanted:.4f}"
    exact = start.precision is torch.float32
    noise = "" if exact else f", for the noise of {str(start.precision).removeprefix('torch.')}"
    if not starts_at_reference:
        return _result(
            f"first loss is {value}", True, f"not expected, as the reference is another model: {loss:.6f}", ""
        )
    return _result(
        f"first loss is {value}",
        per_token <= tolerance,
        f"{loss:.6f} against {wanted:.6f}, policy and reference {per_token:.1e} nats a token apart "
        f"(limit {tolerance:.0e}{noise})",
        "Policy and cached reference disagree before training: clear the reference cache (tiltlm cache), and report it "
        "if that does not help.",
    )
