"""What the saved model is worth on the held-out pairs: read back from its files, in float32."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tiltlm.config import LossConfig
from tiltlm.data.tokens.grouping import prompt_groups
from tiltlm.dpo_loss import LOSSES
from tiltlm.model.reference import scored
from tiltlm.model.scorer import PairScorer
from tiltlm.records import LossSettings, PairLogps, ReferencedPair, TokenizedPair
from tiltlm.runs.estimates import Estimate
from tiltlm.runs.outcomes import Evaluation
from tiltlm.statistics import Z_95, clustered_mean
from tiltlm.training.metrics import PairSums, eval_row


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Held-out pairs with what float32 said of them before training, in nats.

    pairs: with the reference's log-probabilities.
    start_P2: (chosen, rejected) log-probabilities of the model as loaded; mostly it is the reference.
    """

    pairs: Sequence[ReferencedPair]
    start_P2: np.ndarray

    @property
    def tokenized(self) -> list[TokenizedPair]:
        return [item.pair for item in self.pairs]

    @property
    def prompts(self) -> list[int]:
        """Of each pair, the number of its prompt."""
        return prompt_groups(self.tokenized)


def values_of(pairs: Sequence[ReferencedPair]) -> np.ndarray:
    """(chosen, rejected) log-probabilities that came with pairs, float64, shape (P, 2)."""
    return np.array([[item.chosen_logp, item.rejected_logp] for item in pairs], dtype=np.float64)


def exact_logps(
    scorer: PairScorer,
    pairs: Sequence[TokenizedPair],
    token_budget: int,
    advance: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """(chosen, rejected) log-probabilities of pairs in float32 arithmetic, in nats, shape (P, 2).

    Raises:
        NonFiniteError: they are NaN or infinite, naming the pairs.
    """
    place = {id(pair): number for number, pair in enumerate(pairs)}
    values = np.empty((len(pairs), 2))
    for group, logps in scored(scorer, pairs, torch.float32, token_budget):
        values[[place[id(pair)] for pair in group]] = logps
        advance(len(group))
    return values


def evaluate_saved(
    saved_P2: np.ndarray,
    trained_P2: np.ndarray | None,
    held_out: HeldOut,
    loss: LossConfig,
    saved_as: str,
    started: float,
) -> Evaluation:
    """The figures of the saved model.

    Args:
        saved_P2, trained_P2: `exact_logps` of the saved model, and of the trained weights before they were rounded
            to the type of the files; None where files hold them as they were trained.
        saved_as: the type of the files.
        started: when the evaluation began, by `time.perf_counter`.
    """
    reference_P2, prompts = values_of(held_out.pairs), held_out.prompts
    policy, reference = (_pair_logps(values, held_out.tokenized) for values in (saved_P2, reference_P2))
    output = LOSSES[loss.name](policy, reference, LossSettings(**dataclasses.asdict(loss.settings)))
    sums = PairSums()
    sums.add(policy, output)
    changes = [clustered_mean(list(change), prompts) for change in (saved_P2 - held_out.start_P2).T]
    margins = _margins(saved_P2 - reference_P2, loss.settings.beta)
    trained = None if trained_P2 is None else _margins(trained_P2 - reference_P2, loss.settings.beta)
    return Evaluation(
        saved_as=saved_as,
        figures=eval_row(sums, prompts, 0, 0.0, time.perf_counter() - started),
        margin=clustered_mean(list(margins), prompts),
        chosen_logp_change=changes[0],
        rejected_logp_change=changes[1],
        trained_margin=None if trained is None else float(trained.mean()),
        survived=None if trained is None else share_survived(margins, trained),
    )


def share_survived(saved_P: np.ndarray, trained_P: np.ndarray) -> Estimate | None:
    """Which share of the trained model's mean margin the saved model has, with a 95% interval over pairs.

    A ratio of means with its linearised standard error (W. G. Cochran, Sampling Techniques, 3rd ed., eq. 6.12).
    None where the trained model has no margin of which there could be a share.
    """
    mean = float(trained_P.mean())
    if mean == 0 or len(trained_P) < 2:
        return None
    share = float(saved_P.mean()) / mean
    error = float(np.std(saved_P - share * trained_P, ddof=1)) / (np.sqrt(len(trained_P)) * abs(mean))
    return Estimate(share, (share - Z_95 * error, share + Z_95 * error))


def _margins(log_ratios_P2: np.ndarray, beta: float) -> np.ndarray:
    margins: np.ndarray = beta * (log_ratios_P2[:, 0] - log_ratios_P2[:, 1])
    return margins


def _pair_logps(values_P2: np.ndarray, pairs: Sequence[TokenizedPair]) -> PairLogps:
    counts = torch.tensor([[pair.chosen.scored_tokens, pair.rejected.scored_tokens] for pair in pairs])
    logps = torch.from_numpy(values_P2)
    return PairLogps(logps[:, 0], logps[:, 1], counts[:, 0], counts[:, 1])
