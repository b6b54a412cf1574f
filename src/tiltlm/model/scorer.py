"""The scorer: packed rows in, log-probabilities of every scored token out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from tiltlm.errors import ModelError
from tiltlm.model.attention import mask_for, why_not_shareable
from tiltlm.model.head import LogitTransform, token_logps
from tiltlm.plan.batches import MicroBatch

if TYPE_CHECKING:
    from tiltlm.model.adapters import Adapter

SCORER_REVISION = 2
"""Part of the address of every cached reference value. Raise it with each change after which the same model gives other
log-probabilities for the same tokens, be it in the last digits: to the scorer, the head, the masks, the packing or the
arithmetic around them. Policy and reference would not agree otherwise."""


class Scorer(nn.Module):
    """A causal language model that answers one question: how likely are these completions?

    It is the root module of a training step (sharding wraps the root, so its forward must be the one called).

    Attributes:
        model: the transformers model.
        adapter: what is trained of it, where that is not all of its weights.
        unshared_because: why prefixes cannot be shared with this model; None where they can.
    """

    def __init__(self, model: PreTrainedModel, adapter: Adapter | None = None) -> None:
        super().__init__()
        self.model = model
        self.adapter = adapter
        self.unshared_because = why_not_shareable(model)
        self.transform = LogitTransform.of(model)
        head = model.get_output_embeddings()
        if not isinstance(head, nn.Linear):
            raise ModelError(f"{type(model).__name__} has no linear output layer: is it a causal language model?")

    @property
    def trees(self) -> bool:
        """Whether batches for this scorer may hold trees."""
        return self.unshared_because is None

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, by their names in the model."""
        return {name: own for name, own in self.model.named_parameters() if own.requires_grad}

    @property
    def device(self) -> torch.device:
        return self.model.device

    def forward(self, batch: MicroBatch, temperature: float = 1.0) -> Tensor:
        """log pi(token | what comes before it in its sequence), at the given sampling temperature.

        Args:
            batch: on this module's device.
            temperature: logits are divided by it; 1 is the model itself.

        Returns:
            Log-probabilities in nats, float32 or wider, shape (S,), in the order of the batch's score list.
        """
        if batch.trees and self.unshared_because is not None:
            raise ValueError(f"this model cannot take trees: {self.unshared_because}")
        arguments = {"input_ids": batch.tokens_RL, "use_cache": False}
        if batch.trees:
            arguments |= {"attention_mask": mask_for(self.model, batch), "position_ids": batch.positions_RL}
        hidden_RLD = self.model.base_model(**arguments).last_hidden_state
        # A table looked up: an index's own backward pass adds what several completions of a prompt send back to its
        # last token in the order in which threads come by, so that the same step has other last digits each time.
        hidden_SD = F.embedding(batch.score_at_S, hidden_RLD.flatten(0, 1))
        return token_logps(
            hidden_SD, batch.score_token_S, self.model.get_output_embeddings(), self.transform, temperature
        )


def sequence_logps(logps_S: Tensor, batch: MicroBatch) -> Tensor:
    """Sums token log-probabilities by sequence: log pi(y|x) in nats, shape (N,)."""
    sums_N = torch.zeros(batch.sequences, dtype=logps_S.dtype, device=logps_S.device)
    return sums_N.index_add(0, batch.score_sequence_S, logps_S)
