"""The scorer: packed rows in, log-probabilities of every scored token out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from tiltlm.errors import ModelError
from tiltlm.model.adapter_of_peft import Adapter
from tiltlm.model.attention import attention_arguments, choose_attention, layout_of, why_not_shareable
from tiltlm.model.divergence import ReferenceStates, logps_and_divergence
from tiltlm.model.head import LogitTransform, token_logps, token_logps_and_squares
from tiltlm.model.tempered import tempered_moments
from tiltlm.model.token_values import TokenValues
from tiltlm.plan.batches import MicroBatch
from tiltlm.plan.row_layout import SEQUENCES, Layout

SCORER_REVISION = 5
"""Part of the address of every cached reference value. Raise it with each change after which the same model gives other
log-probabilities for the same tokens, be it in the last digits: to the scorer, the head, the masks, the packing or the
arithmetic around them. Policy and reference would not agree otherwise."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What a scorer is asked to say of each scored token besides its log-probability.

    squares: log of its distribution's sum of squares. reference: a model at work, of which the token's log-probability
    is wanted; divergence: and how far the whole distributions are apart. temperatures: at each of which it is wanted
    what the model expects there, see `tempered_moments`.
    """

    squares: bool = False
    reference: Scorer | None = None
    divergence: bool = False
    temperatures: tuple[float, ...] = ()


class Scorer(nn.Module):
    """A causal language model that answers one question: how likely are these completions?

    It is the root module of a training step (sharding wraps the root, so its forward must be the one called).

    Attributes:
        model: the transformers model.
        adapter: what is trained of it, where that is not all of its weights.
        place: where it computes, if its weights may lie elsewhere.
        unshared_because: why prefixes cannot be shared with this model; None where they can.
    """

    def __init__(self, model: PreTrainedModel, adapter: Adapter | None = None) -> None:
        super().__init__()
        self.model = model
        choose_attention(model)
        self.adapter = adapter
        self.place: torch.device | None = None
        self.unshared_because = why_not_shareable(model)
        self.transform = LogitTransform.of(model)
        head = model.get_output_embeddings()
        if not isinstance(head, nn.Linear):
            raise ModelError(f"{type(model).__name__} has no linear output layer: is it a causal language model?")

    def at_temperature(self, temperature: float) -> Scorer:
        """The same scorer, whose log-probabilities are from now on those of logits divided by this; 1: as they are."""
        self.transform = replace(self.transform, temperature=temperature)
        return self

    @property
    def layout(self) -> Layout:
        """How batches for this scorer are laid out."""
        return SEQUENCES if self.unshared_because else layout_of(self.model, self.device)

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, by their names in the model."""
        return {name: own for name, own in self.model.named_parameters() if own.requires_grad}

    @property
    def device(self) -> torch.device:
        """Where it computes, wherever its weights lie meanwhile."""
        return self.model.device if self.place is None else self.place

    def forward(self, batch: MicroBatch, temperature: float = 1.0, asked: Asked | None = None) -> Tensor | TokenValues:
        """log pi(token | what comes before it in its sequence), at the given sampling temperature.

        Args:
            batch: on this module's device.
            temperature: logits are divided by it; 1 is the model itself.
            asked: what is wanted besides, at temperature 1.

        Returns:
            Log-probabilities in nats, float32 or wider, shape (S,), in the order of the batch's score list; with all
            that was asked for where something was.
        """
        hidden_SD = self.hidden_states(batch)
        if asked is None:
            return token_logps(hidden_SD, batch.score_token_S, self.head, self.transform, temperature)
        return self._values(hidden_SD, batch, asked)

    def hidden_states(self, batch: MicroBatch) -> Tensor:
        """The hidden states that predict the scored tokens, shape (S, D)."""
        if batch.trees and self.unshared_because is not None:
            raise ValueError(f"this model cannot take trees: {self.unshared_because}")
        arguments = {"input_ids": batch.tokens_RL, "use_cache": False}
        if batch.trees:
            arguments |= {"position_ids": batch.positions_RL, **attention_arguments(self.model, batch)}
        hidden_RLD = self.model.base_model(**arguments).last_hidden_state
        # A table looked up: an index's own backward pass adds what several completions of a prompt send back to its
        # last token in the order in which threads come by, so that the same step has other last digits each time.
        return F.embedding(batch.score_at_S, hidden_RLD.flatten(0, 1))

    @property
    def head(self) -> nn.Linear:
        """The output layer."""
        layer: nn.Linear = self.model.get_output_embeddings()
        return layer

    def _values(self, hidden_SD: Tensor, batch: MicroBatch, asked: Asked) -> TokenValues:
        tokens, log_squares_S, reference_S = batch.score_token_S, None, None
        if asked.reference is not None and asked.divergence:
            reference = asked.reference
            with torch.no_grad():
                states = ReferenceStates(reference.hidden_states(batch), reference.head, reference.transform)
            logps_S, divergence_S, reference_S = logps_and_divergence(
                hidden_SD, tokens, self.head, self.transform, states
            )
            if asked.squares:
                with torch.no_grad():
                    log_squares_S = token_logps_and_squares(hidden_SD, tokens, self.head, self.transform)[1]
            return TokenValues(logps_S, log_squares_S, divergence_S, reference_S)
        if asked.reference is not None:
            with torch.no_grad():
                reference_S = asked.reference(batch)
        if asked.squares:
            logps_S, log_squares_S = token_logps_and_squares(hidden_SD, tokens, self.head, self.transform)
        else:
            logps_S = token_logps(hidden_SD, tokens, self.head, self.transform)
        tempered_SM = None
        if asked.temperatures:
            tempered_SM = tempered_moments(hidden_SD, tokens, self.head, self.transform, asked.temperatures)
        return TokenValues(logps_S, log_squares_S, None, reference_S, tempered_SM)


def sequence_logps(logps_S: Tensor, batch: MicroBatch) -> Tensor:
    """Sums token log-probabilities by sequence: log pi(y|x) in nats, shape (N,)."""
    sums_N = torch.zeros(batch.sequences, dtype=logps_S.dtype, device=logps_S.device)
    return sums_N.index_add(0, batch.score_sequence_S, logps_S)
