"""The frozen types that flow from room to room: pairs, tokens, packed rows, log-probabilities, losses.

Shape suffixes of tensor names: P pairs, S scored positions, R rows, L row length.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat: `role` is `system`, `user`, `assistant` or another the chat template knows.

    further: what else the message says, such as `tool_calls` or `reasoning_content`: names in alphabetical order, each
        with the JSON text of its value, so that messages can be compared and counted.
    """

    role: str
    content: str
    further: tuple[tuple[str, str], ...] = ()


# Verbatim text, or a chat still to be rendered by the model's template.
Text = str | tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A prompt with a preferred and a less preferred completion, as read from the user's data.

    `id` names the pair in every message and report: the file and line (or row) it came from, with
    a suffix where one row gives several pairs. Either all three texts are verbatim strings, which
    are concatenated as they stand, or all three are messages for the model's chat template.

    tools: JSON text of the list of tools that the chat template is given; None where there are none.
    """

    id: str
    prompt: Text
    chosen: Text
    rejected: Text
    tools: str | None = None


@dataclass(frozen=True, slots=True)
class DroppedPair:
    """A row or pair that is not used, and why. Every one is listed in `data_report.json`."""

    id: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedSequence:
    """Prompt and completion as one token sequence.

    ids: int32 token ids, shape (tokens,).
    first_scored: index of the first token that belongs to the completion; at least 1.
    tokens_cut: how many tokens the completion lost at its end.
    """

    ids: np.ndarray
    first_scored: int
    tokens_cut: int = 0

    @property
    def scored_tokens(self) -> int:
        return len(self.ids) - self.first_scored


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedPair:
    """Both sequences of a pair, ready to be packed. `prompt_tokens_cut` were removed of the prompt."""

    id: str
    chosen: TokenizedSequence
    rejected: TokenizedSequence
    prompt_tokens_cut: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class ReferencedPair:
    """A pair with its reference log-probabilities, log pi_ref(y|x) in nats: what a training step reads."""

    pair: TokenizedPair
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
