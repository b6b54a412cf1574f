"""What a model makes of the states of answers: hidden states in the middle of its depth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.errors import ConfigError
from tiltlm.model.loading import autocast, layers_of
from tiltlm.model.scorer import Scorer
from tiltlm.model.scoring import EXAMPLES_AT_ONCE
from tiltlm.plan.batches import MicroBatch
from tiltlm.plan.packing import plan

_INSTEAD = "take an objective that reads no credit by token, such as `rebel`."


def depths(scorer: Scorer) -> tuple[int, int]:
    """The numbers of the layers in the middle and at three quarters of the depth, counted from 0.

    Raises:
        ConfigError: the model's layers are not marked as such.
    """
    count = len(_layers(scorer))
    if not count:
        raise ConfigError(
            f"the layers of {type(scorer.model).__name__} cannot be told apart, so what its states are worth cannot be "
            f"learnt: {_INSTEAD}"
        )
    return max(count // 2 - 1, 0), max(3 * count // 4 - 1, 0)


def hidden_states(
    scorer: Scorer,
    columns: TokenColumns,
    layers: Sequence[int],
    precision: torch.dtype,
    token_budget: int,
    advance: Callable[[int], None] = lambda done: None,
) -> list[np.ndarray]:
    """What each layer gives at the states before all scored tokens of the columns: float32, shape (S, D), a layer.

    Args:
        layers: their numbers, counted from 0.
        precision: of autocast; float32 is none.
        token_budget: most columns in one forward pass.
        advance: called with how many more examples are done.
    """
    given: dict[int, Tensor] = {}

    def keeping(number: int) -> Callable[[Any, Any, Any], None]:
        def keep(module: Any, arguments: Any, output: Any) -> None:
            states = output[0] if isinstance(output, tuple) else output
            if states.ndim != 3:
                raise ConfigError(
                    f"the layers of {type(scorer.model).__name__} give no single state of each token, so what its "
                    f"states are worth cannot be learnt: {_INSTEAD}"
                )
            given[number] = states

        return keep

    modules = _layers(scorer)
    width, states = scorer.model.config.get_text_config().hidden_size, int(columns.scored_starts[-1])
    found = [np.empty((states, width), dtype=np.float32) for _ in layers]
    handles = [modules[number].register_forward_hook(keeping(number)) for number in layers]
    try:
        for batch in _batches(scorer, columns, token_budget):
            on_device = batch.to(scorer.device)
            with torch.inference_mode(), autocast(scorer.device, precision):
                scorer.hidden_states(on_device)
            for values, number in zip(found, layers, strict=True):
                values[batch.places] = given[number].flatten(0, 1)[on_device.score_at_S].float().cpu().numpy()
            advance(len(batch.examples))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _layers(scorer: Scorer) -> list[nn.Module]:
    """Those that read text: a model that sees pictures has others besides."""
    return layers_of(scorer.model.get_decoder())


def _batches(scorer: Scorer, columns: TokenColumns, token_budget: int) -> Iterator[MicroBatch]:
    for start in range(0, len(columns), EXAMPLES_AT_ONCE):
        numbers = range(start, min(start + EXAMPLES_AT_ONCE, len(columns)))
        yield from plan(columns, numbers, token_budget, scorer.layout).micro_batches
