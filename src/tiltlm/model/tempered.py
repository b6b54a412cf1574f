"""What a model expects of the next token at several temperatures, beside the token that stands there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tiltlm.model import head as chunks
from tiltlm.model.head import LogitTransform

MOMENTS = 3
"""Values of a token at each temperature: surprise, excess, variance."""


def tempered_moments(
    hidden_SD: Tensor, token_S: Tensor, head: nn.Linear, transform: LogitTransform, temperatures: Sequence[float]
) -> Tensor:
    """Of each token, under softmax(logits / T) for each temperature T:

        surprise: -log pi_T(token), in nats
        excess: surprise less its expectation, the entropy of pi_T where the token stands, in nats
        variance: of the surprise of a token that is drawn from pi_T there, in nats squared

    Had the model written the token at temperature T, the excess would be zero on average and its square the variance,
    given whatever stands before: no sample is needed to know it. Of two temperatures comes more: with those of 1/2
    and 1, log sum_v pi(v)^2 = surprise_(1/2) - 2 surprise_1.

    Logits are made a tile of rows at a time, of which one and two of its size are alive at once.

    Args:
        hidden_SD: hidden states that predict the tokens. token_S: the tokens.

    Returns:
        float32 (float64 for float64 weights), without gradient, shape (S, temperatures * `MOMENTS`), temperature by
        temperature.
    """
    weight_VD, bias_V = head.weight.detach(), None if head.bias is None else head.bias.detach()
    making = transform.made_in(hidden_SD)
    most = chunks.CHUNK_ELEMENTS // 2 if hidden_SD.device.type != "cpu" else chunks.TILE_ELEMENTS
    rows = max(1, most // len(weight_VD))
    dtype = torch.float64 if hidden_SD.dtype is torch.float64 else torch.float32
    moments_SKM = hidden_SD.new_empty((len(token_S), len(temperatures), MOMENTS), dtype=dtype)
    for start in range(0, len(token_S), rows):
        part = slice(start, start + rows)
        logits = making.logits(hidden_SD[part].detach(), weight_VD, bias_V)
        # Every sum below is of logits from their largest on down, so that none is a difference of large numbers. One
        # that is excluded, -inf, has no weight; as a number it adds nothing.
        logits = logits.sub_(logits.amax(-1, keepdim=True)).clamp_(min=-1e4)
        own_R, squares = logits.gather(-1, token_S[part, None]).squeeze(-1), logits.square()
        for place, temperature in enumerate(temperatures):
            weights = (logits / temperature).exp_()
            total_R = weights.sum(-1)
            mean_R = torch.linalg.vecdot(weights, logits) / total_R
            variance_R = torch.linalg.vecdot(weights, squares) / total_R - mean_R.square()
            moments_SKM[part, place, 0] = total_R.log() - own_R / temperature
            moments_SKM[part, place, 1] = (mean_R - own_R) / temperature
            moments_SKM[part, place, 2] = variance_R.clamp(min=0) / temperature**2
    return moments_SKM.flatten(1)
