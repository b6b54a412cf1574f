"""The frozen types that flow from room to room: packed rows, log-probabilities, losses.

Shape suffixes of tensor names: P pairs, S scored positions, R rows, L row length.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from tiltlm.data.tokens.token_columns import TokenizedExample


@dataclass(frozen=True, slots=True, eq=False)
class ReferencedPair:
    """A pair with its reference log-probabilities, log pi_ref(y|x) in nats: what a training step reads."""

    pair: TokenizedExample
    chosen_logp: float
    rejected_logp: float


@dataclass(frozen=True, slots=True, eq=False)
class PackedBatch:
    """Token sequences laid out as trees in rows, with the list of what is scored.

    tokens_RL: int64 token ids; padding holds token 0.
    positions_RL: int64 position of each token within its own sequence.
    subtree_end_RL: int64 column where the subtree headed by each token ends (exclusive): column i
        sees column j exactly when j <= i < subtree_end[j]. A padding column sees only itself.
    score_at_S: int64 index into the flattened (R*L) columns whose hidden state predicts ...
    score_token_S: int64 ... this token ...
    score_segment_S: int64 ... of this sequence; sequences are numbered as they were given.
    sequences: how many sequences (segments) there are.
    trees: False where every row holds one sequence alone, as models need whose layers carry a state.
    """

    tokens_RL: Tensor
    positions_RL: Tensor
    subtree_end_RL: Tensor
    score_at_S: Tensor
    score_token_S: Tensor
    score_segment_S: Tensor
    sequences: int
    trees: bool

    def to(self, device: torch.device) -> PackedBatch:
        """The batch with its tensors on a device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        return replace(self, **{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()})


@dataclass(frozen=True, slots=True, eq=False)
class PairLogps:
    """Log-probabilities of P pairs' completions under one model, in nats, summed over tokens.

    chosen_P, rejected_P: float32 log pi(y|x).
    chosen_tokens_P, rejected_tokens_P: int64 number of tokens in each sum.
    """

    chosen_P: Tensor
    rejected_P: Tensor
    chosen_tokens_P: Tensor
    rejected_tokens_P: Tensor


@dataclass(frozen=True, slots=True)
class LossSettings:
    """What an objective may depend on.

    beta: weight of the KL penalty, reward per nat (theory.pdf, eq. 1 (objective) and Corollary 2 (frontier); arXiv
        2305.18290, eq. 3).
    label_smoothing: assumed share of flipped labels, in [0, 0.5).
    """

    beta: float
    label_smoothing: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class LossOutput:
    """losses_P: the objective per pair. chosen_rewards_P, rejected_rewards_P: implicit rewards, detached: beta *
    (log pi - log pi_ref), theory.pdf, eq. 8 (implicit-reward).
    """

    losses_P: Tensor
    chosen_rewards_P: Tensor
    rejected_rewards_P: Tensor
