"""What a scorer says of each scored token, besides its log-probability where an objective needs more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class TokenValues:
    """Values of scored tokens in nats, each of shape (S,), in the order of the batch's score list; None: not asked for.

    logps_S: log pi(token | what comes before it).
    log_squares_S: log of the sum over the vocabulary of pi(v)^2 where the token stands; without gradient.
    divergence_S: KL(pi_ref || pi) of the whole distributions where the token stands.
    reference_S: log pi_ref(token | what comes before it) of a reference at work; without gradient.
    tempered_SM: what the model expects at several temperatures, shape (S, M), see `tempered_moments`.
    """

    logps_S: Tensor
    log_squares_S: Tensor | None = None
    divergence_S: Tensor | None = None
    reference_S: Tensor | None = None
    tempered_SM: Tensor | None = None

    @property
    def differentiable(self) -> tuple[Tensor, ...]:
        """Those that a loss has a slope by."""
        return (self.logps_S,) if self.divergence_S is None else (self.logps_S, self.divergence_S)

    def as_leaves(self) -> TokenValues:
        """The same numbers, from which a gradient can be taken and no further."""
        divergence_S = None if self.divergence_S is None else self.divergence_S.detach().requires_grad_()
        return replace(self, logps_S=self.logps_S.detach().requires_grad_(), divergence_S=divergence_S)

    def table(self) -> Tensor:
        """The policy's own values as columns, log-probabilities first, without gradient: see `Columns`."""
        columns = [self.logps_S, *(own for own in (self.log_squares_S, self.divergence_S) if own is not None)]
        if self.tempered_SM is not None:
            columns += self.tempered_SM.unbind(1)
        return self.logps_S.detach() if len(columns) == 1 else torch.stack(columns, dim=1).detach()


@dataclass(frozen=True, slots=True)
class Columns:
    """What arrays of scored tokens hold: log-probabilities alone, shape (tokens,), or columns, shape (tokens, columns),
    of which they are the first; then log of the sum of squares, then divergence, where they are held; then `tempered`
    columns of what the model expects at several temperatures."""

    squares: bool = False
    divergence: bool = False
    tempered: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one token's values."""
        columns = 1 + self.squares + self.divergence + self.tempered
        return () if columns == 1 else (columns,)

    def values(self, table: np.ndarray, dtype: torch.dtype) -> TokenValues:
        """The columns by name."""
        columns: Sequence[Tensor] = torch.from_numpy(table).to(dtype).reshape(len(table), -1).unbind(1)
        rest = iter(columns[1:])
        return TokenValues(
            columns[0],
            log_squares_S=next(rest) if self.squares else None,
            divergence_S=next(rest) if self.divergence else None,
            tempered_SM=torch.stack(list(rest), dim=1) if self.tempered else None,
        )


def logps_of(table: np.ndarray) -> np.ndarray:
    """The log-probabilities in an array of tokens' values, shape (tokens,)."""
    return table if table.ndim == 1 else table[:, 0]
