"""Checks on the first real batch, before any weight changes: a run that starts wrong does not start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tiltlm.data.tokens.packing import pack_pairs
from tiltlm.data.tokens.tokenization import PairTokenizer
from tiltlm.errors import SelfCheckError
from tiltlm.model.loading import arithmetic
from tiltlm.model.scorer import PairScorer, sequence_logps
from tiltlm.records import PackedBatch, PairLogps, ReferencedPair, TokenizedSequence
from tiltlm.runs.outcomes import Check
from tiltlm.training.loop import Trainer, reference_logps

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


def run_checks(trainer: Trainer, items: Sequence[ReferencedPair], tokenizer: PairTokenizer) -> list[Check]:
    """All checks, on the pairs of the first step.

    Args:
        items: the first global batch.
        tokenizer: the one that made it.

    Raises:
        SelfCheckError: at least one failed; the message says which, with numbers and the likely cause.
    """
    results = [_one_bos(items, tokenizer), _eos_present(items, tokenizer), *_numbers(trainer, items)]
    failed = [result for result in results if not result.check.passed]
    if failed:
        lines = [f"{result.check.name}: {result.check.detail}. {result.explanation}" for result in failed]
        raise SelfCheckError("the start-up check failed. " + " ".join(lines))
    return [result.check for result in results]


def _result(name: str, passed: bool, detail: str, explanation: str) -> _Result:
    return _Result(Check(name, passed, detail), explanation)


def _sequences(items: Sequence[ReferencedPair]) -> list[TokenizedSequence]:
    return [sequence for item in items for sequence in (item.pair.chosen, item.pair.rejected)]


def _one_bos(items: Sequence[ReferencedPair], tokenizer: PairTokenizer) -> _Result:
    bos, wanted = tokenizer.tokenizer.bos_token_id, tokenizer.adds_bos
    doubled = missing = within = 0
    for sequence in _sequences(items):
        starts = sequence.ids[0] == bos
        twice = bool(starts and len(sequence.ids) > 1 and sequence.ids[1] == bos)
        doubled += twice
        missing += bool(wanted and not starts)
        # Some templates begin every turn with it, so it is not wrong in itself; the notes say where the data has it.
        within += bool(wanted and not twice and (sequence.ids[1:] == bos).any())
    lack = f"{missing} of {2 * len(items)} sequences lack it" if wanted else "the tokenizer adds none"
    also = f", {within} have another further on" if within else ""
    return _result(
        "one BOS",
        doubled == missing == 0,
        f"{lack}, {doubled} have it twice{also}",
        "Text that already holds the BOS token was probably given to a tokenizer that adds one.",
    )


def _eos_present(items: Sequence[ReferencedPair], tokenizer: PairTokenizer) -> _Result:
    # A completion that was cut does not end where the answer did.
    sequences = [sequence for sequence in _sequences(items) if not sequence.tokens_cut]
    ended = sum(int(sequence.ids[-1]) in tokenizer.terminators for sequence in sequences)
    if tokenizer.config.eos == "as-is":
        return _result("EOS", True, f"data.eos is as-is, {ended} of {len(sequences)} completions end with it", "")
    return _result(
        "EOS",
        ended == len(sequences),
        f"{ended} of {len(sequences)} completions end with it",
        "Every completion should end with one under data.eos `append`; this is a defect of tiltlm, please report it.",
    )


@torch.no_grad()
def _numbers(trainer: Trainer, items: Sequence[ReferencedPair]) -> list[_Result]:
    by_length = sorted(items, key=lambda item: len(item.pair.chosen.ids) + len(item.pair.rejected.ids))
    sample = [by_length[at] for at in sorted({0, len(items) // 2, len(items) - 1})]
    batch = pack_pairs([item.pair for item in sample], trainer.scorer.trees).to(trainer.scorer.device)
    exact_S = trainer.scorer(batch)
    results = [_layout(trainer.scorer, sample, batch, exact_S)]
    tolerance = LAYOUT_TOLERANCE
    if trainer.precision is not torch.float32:
        rounding, noise = _rounding(trainer, batch, exact_S)
        results.append(rounding)
        tolerance = max(tolerance, NOISE_FACTOR * noise)
    return [*results, _first_loss(trainer, items, tolerance)]


def _layout(scorer: PairScorer, sample: Sequence[ReferencedPair], batch: PackedBatch, exact_S: Tensor) -> _Result:
    """Packed and shared against stock transformers, one sequence at a time with its own full logits, in float32.

    sample: the shortest, a middle and the longest pair of the batch.
    """
    fast, counts = sequence_logps(exact_S, batch)
    largest = 0.0
    for segment, sequence in enumerate(_sequences(sample)):
        ids = torch.from_numpy(sequence.ids).long().to(scorer.device)
        logits = scorer.model(input_ids=ids[None, :-1], use_cache=False).logits[0, sequence.first_scored - 1 :]
        slow = logits.float().log_softmax(-1).gather(-1, ids[sequence.first_scored :, None]).sum()
        largest = max(largest, abs(float(fast[segment] - slow)) / int(counts[segment]))
    layout = "packed with shared prompts" if scorer.trees else "one sequence a row"
    return _result(
        "fast path equals slow path",
        largest <= LAYOUT_TOLERANCE,
        f"{layout}, at most {largest:.1e} nats a token from stock transformers in float32 (limit "
        f"{LAYOUT_TOLERANCE:.0e})",
        "This architecture does something to its logits or positions that tiltlm does not know; please report it.",
    )


def _rounding(trainer: Trainer, batch: PackedBatch, exact_S: Tensor) -> tuple[_Result, float]:
    """What the arithmetic of training rounds away of the same numbers: measured and said, and no reason to stop."""
    with arithmetic(trainer.scorer.device, trainer.precision):
        rounded_S = trainer.scorer(batch)
    per_token = float((rounded_S - exact_S).abs().mean())
    errors, _ = sequence_logps(rounded_S - exact_S, batch)
    per_completion = float(errors.abs().mean())
    margin = trainer.config.loss.settings.beta * float((errors[0::2] - errors[1::2]).abs().mean())
    name = str(trainer.precision).removeprefix("torch.")
    result = _result(
        f"noise of {name}",
        per_token < NONSENSE,
        f"{per_token:.2g} nats a token, {per_completion:.2g} a completion, {margin:.2g} in an implicit reward "
        "margin, on average",
        f"In {name} this model computes something else than in float32: set model.precision to float32.",
    )
    return result, per_token


def _first_loss(trainer: Trainer, items: Sequence[ReferencedPair], tolerance: float) -> _Result:
    """Before training, policy and reference agree, so the loss is what the objective gives for equal arguments."""
    config = trainer.config
    loss, wanted, difference, tokens = 0.0, 0.0, 0.0, 0
    for group in trainer.micro_batches(items):
        policy, output, _ = trainer.score(group)
        reference = reference_logps(group, policy)
        same = trainer.objective(policy, policy)
        loss += float(output.losses_P.sum()) / len(items)
        wanted += float(same.losses_P.sum()) / len(items)
        difference += _absolute_difference(policy, reference)
        tokens += int(policy.chosen_tokens_P.sum() + policy.rejected_tokens_P.sum())
    per_token = difference / tokens
    value = "ln 2" if config.loss.name == "sigmoid" else f"{wanted:.4f}"
    exact = trainer.precision is torch.float32
    noise = "" if exact else f", for the noise of {str(trainer.precision).removeprefix('torch.')}"
    if config.model.reference is not None:
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


def _absolute_difference(a: PairLogps, b: PairLogps) -> float:
    return float((a.chosen_P - b.chosen_P).abs().sum() + (a.rejected_P - b.rejected_P).abs().sum())
