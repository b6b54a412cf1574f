"""Which token comes next: the likeliest, or one drawn by a random number that belongs to the answer alone.

Shape suffixes: R answers, V vocabulary, T tokens of an answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tiltlm.distributed.ranks import ALONE, Ranks


@dataclass(frozen=True, slots=True)
class Draw:
    """How an answer comes about.

    temperature: of the softmax from which it is drawn, and at which its log-probability is told.
    number: of the random numbers. Answers to one prompt are independent where their numbers differ, and the same where
        number and temperature are. None: no random numbers, but the likeliest token each time (greedy).
    """

    temperature: float
    number: int | None


class Drawing:
    """The draws of some answers that come about together.

    The random numbers of an answer follow from the seed, its prompt and its number; so another batch, other prompts or
    a longer limit change none, and two models given the same seed differ by their weights alone.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        draws: Sequence[Draw],
        most: int,
        seed: int,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        """prompts: of each answer. most: tokens of the longest answer. ranks: that have the same answers come about,
        and must go on alike whatever the last digits of their logits: by what the first one draws."""
        self._ranks = ranks
        numbers = [_random_numbers(ids, draw, most, seed) for ids, draw in zip(prompts, draws, strict=True)]
        kind = torch.float32 if device.type == "mps" else torch.float64
        self._numbers_RT = torch.from_numpy(np.stack(numbers)).to(device, kind)
        self._temperature_R = torch.tensor([draw.temperature for draw in draws], device=device)
        self._greedy_R = torch.tensor([draw.number is None for draw in draws], device=device)

    def next(self, logits_RV: Tensor, rows_R: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The next token of the answers `rows_R`, int64, and its log-probability, in nats; shape (R,) both.

        Args:
            logits_RV: float32 or wider.
        """
        logps_RV = (logits_RV / self._temperature_R[rows_R, None]).log_softmax(-1)
        # Inverse transform sampling. A token of probability 0 adds nothing to the sum before it, and is never taken.
        sums_RV = logps_RV.exp().cumsum(-1, dtype=self._numbers_RT.dtype)
        total_R = sums_RV[:, -1]
        wanted_R = torch.minimum(self._numbers_RT[rows_R, step] * total_R, total_R.nextafter(torch.zeros_like(total_R)))
        drawn_R = torch.searchsorted(sums_RV, wanted_R[:, None], right=True).squeeze(-1)
        tokens_R = torch.where(self._greedy_R[rows_R], logits_RV.argmax(-1), drawn_R)
        tokens_R = tokens_R.clamp(max=logits_RV.shape[-1] - 1)  # where sums are NaN, which the log-probability tells
        tokens_R = self._ranks.of_first(tokens_R)
        return tokens_R, logps_RV.gather(-1, tokens_R[:, None]).squeeze(-1)


def _random_numbers(prompt: Sequence[int], draw: Draw, most: int, seed: int) -> np.ndarray:
    """Numbers in [0, 1) for the tokens of one answer, float64, shape (most,)."""
    if draw.number is None:
        return np.zeros(most)
    named = np.array([seed, draw.number, *prompt], dtype="<i8").tobytes()
    key = int.from_bytes(hashlib.sha256(named).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key)).random(most)
