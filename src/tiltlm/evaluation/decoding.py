"""Many answers at once, token by token: each prompt is computed once, and an answer that has ended no more.

Prompts are laid out in rows as training's sequences are, what they have in common once, and leave their keys and
values. An answer begins with a copy of its prompt's. Room for its own is taken once; a step's tokens stand in a column.

Shape suffixes: R answers, L columns of a row of prompts, V vocabulary, D hidden size.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.evaluation.drawing import Drawing
from tiltlm.model.attention import Mask, by_kind_of_layer, why_not_shareable
from tiltlm.model.head import LogitTransform
from tiltlm.objectives.interface import CHOSEN
from tiltlm.plan.tries import LaidOutRow, SortedSequences

PROMPT_COLUMNS = 1024
"""Columns of a row of prompts, unless one prompt alone is longer: attention costs the square of it."""
KEPT = 0.75
"""Answers are moved together once no more than this share of them goes on: moving copies their keys and values."""


def decodes(model: PreTrainedModel) -> bool:
    """Whether a model's layers keep keys and values, a column a token, and nothing else from token to token."""
    return (
        why_not_shareable(model) is None and "past_key_values" in inspect.signature(model.base_model.forward).parameters
    )


def decode(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], drawing: Drawing, most: int, terminators: frozenset[int]
) -> Drawn:
    """Answers to prompts, one each, of at most `most` tokens; a prompt that is there several times is computed once.

    Args:
        model: one that `decodes`. drawing: of as many answers, in this order.
    """
    device, drawn = model.device, Drawn.none(len(prompts), most, model.device)
    ends = torch.tensor(sorted(terminators), dtype=torch.long, device=device)
    length_R = torch.tensor([len(prompt) for prompt in prompts], device=device)
    longest = max(len(prompt) for prompt in prompts)
    layers, hidden_RD = _begun(model, prompts, longest, most)
    cache = Cache(layers=[*layers])
    rows_R, first_R = torch.arange(len(prompts), device=device), longest - length_R
    for step in range(most):
        tokens_R, logps_R = drawing.next(_logits(model, hidden_RD), rows_R, step)
        drawn.take(rows_R, tokens_R, logps_R, step, ends)
        going = (drawn.lengths_R[rows_R] == most).nonzero().squeeze(-1)
        if step + 1 == most or not len(going):
            break
        if len(going) <= KEPT * len(rows_R):
            rows_R, first_R, tokens_R = rows_R[going], first_R[going], tokens_R[going]
            for layer in layers:
                layer.keep(going)
        last = longest + step  # the column of these tokens
        column = torch.arange(last + 1, device=device)
        visible = (column >= first_R[:, None])[:, None, None]
        output = model.base_model(
            input_ids=tokens_R[:, None],
            attention_mask=_by_kind(model, visible, last - column),
            position_ids=(last - first_R)[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        hidden_RD = output.last_hidden_state[:, -1]
    return drawn


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Answers so far: tokens, their log-probabilities, and how many count; `most` where an answer has not ended."""

    tokens_RT: Tensor
    logps_RT: Tensor
    lengths_R: Tensor

    @staticmethod
    def none(answers: int, most: int, device: torch.device) -> Drawn:
        """Before the first token."""
        return Drawn(
            torch.zeros(answers, most, dtype=torch.long, device=device),
            torch.zeros(answers, most, device=device),
            torch.full((answers,), most, device=device),
        )

    def take(self, rows_R: Tensor, tokens_R: Tensor, logps_R: Tensor, step: int, ends: Tensor) -> None:
        """Notes a step's tokens of some answers; one that ended before stays as it was."""
        self.tokens_RT[rows_R, step], self.logps_RT[rows_R, step] = tokens_R, logps_R.to(self.logps_RT.dtype)
        ended_R = torch.isin(tokens_R, ends).long()
        most = self.tokens_RT.shape[1]
        self.lengths_R[rows_R] = torch.minimum(self.lengths_R[rows_R], most - ended_R * (most - step - 1))


class _Columns(DynamicLayer):
    """Keys and values of one layer, shape (R, heads, columns, size), in room for all there will be: those of a new
    token are written into it, where transformers' own would copy all that there are beside them."""

    def __init__(self, keys: Tensor, values: Tensor, filled: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._room, self._filled = (keys, values), filled
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._shown()

    def _shown(self) -> tuple[Tensor, Tensor]:
        shown = (self._room[0][:, :, : self._filled], self._room[1][:, :, : self._filled])
        self.keys, self.values = shown
        return shown

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Takes in the keys and values of new tokens, shape (R, heads, tokens, size); returns all."""
        start, self._filled = self._filled, self._filled + key_states.shape[-2]
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, start : self._filled] = new
        return self._shown()

    def keep(self, rows: Tensor) -> None:
        """Leaves all rows out but these."""
        self._room = (self._room[0][rows], self._room[1][rows])
        self._shown()


def _begun(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], longest: int, most: int
) -> tuple[list[_Columns], Tensor]:
    """Each answer's prompt, moved right so that all end before column `longest`; its last hidden state, (R, D)."""
    unique = {prompt: number for number, prompt in enumerate(sorted({tuple(prompt) for prompt in prompts}))}
    computed: list[list[tuple[Tensor, Tensor]]] = []  # of each row of prompts its layers' keys and values
    columns: dict[int, np.ndarray] = {}  # of each prompt among all that are computed
    hidden: dict[int, Tensor] = {}
    done = 0
    for row, paths in _rows_of_prompts(list(unique)):
        layers, states_LD = _row_computed(model, row)
        for prompt, path in paths.items():
            columns[prompt], hidden[prompt] = done + path, states_LD[path[-1]]
        computed.append(layers)
        done += len(row.tokens)
    answered = [unique[tuple(prompt)] for prompt in prompts]
    padded = np.stack([np.pad(columns[prompt], (longest - len(columns[prompt]), 0)) for prompt in answered])
    column_RC = torch.from_numpy(padded).to(model.device)
    begun = []
    while computed[0]:  # the last layer first; what is copied is let go
        keys, values = zip(*(layers.pop() for layers in computed), strict=True)
        room_keys, room_values = (_copied(torch.cat(some, 2), column_RC, most) for some in (keys, values))
        begun.append(_Columns(room_keys, room_values, longest))
    return begun[::-1], torch.stack([hidden[prompt] for prompt in answered])


def _copied(held: Tensor, column_RC: Tensor, most: int) -> Tensor:
    """These columns of keys or values (1, heads, L, size) with room for `most` more: (R, heads, C + most, size)."""
    answers, filled = column_RC.shape
    room = held.new_empty(answers, held.shape[1], filled + most, held.shape[3])
    room[:, :, :filled] = held[0][:, column_RC].transpose(0, 1)
    return room


def _rows_of_prompts(prompts: Sequence[tuple[int, ...]]) -> Iterator[tuple[LaidOutRow, dict[int, np.ndarray]]]:
    """Rows of sorted prompts, with the columns that each prompt's tokens stand in."""
    # The last token of a sequence is laid out nowhere, so each has one more.
    sequences = [TokenizedSequence(np.array([*prompt, 0], dtype=np.int32), len(prompt)) for prompt in prompts]
    columns = TokenColumns.of(TokenizedExample(str(n), (own,), (CHOSEN,)) for n, own in enumerate(sequences))
    laid_out = SortedSequences(columns, np.arange(len(prompts)))
    waiting: list[int] = []
    for number in [*range(len(prompts)), None]:
        if waiting and (number is None or laid_out.tree_size([*waiting, number]) > PROMPT_COLUMNS):
            row = laid_out.lay_out(waiting)
            seen = [np.flatnonzero(row.subtree_end[: last + 1] > last) for last in row.score_at]
            yield row, dict(zip(row.sequences, seen, strict=True))
            waiting = []
        if number is not None:
            waiting.append(number)


def _row_computed(model: PreTrainedModel, row: LaidOutRow) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Keys and values of a row's columns in each layer, and their last hidden states, shape (L, D)."""
    tokens_L, position_L, end_L = (
        torch.from_numpy(some.astype(np.int64)).to(model.device)
        for some in (row.tokens, row.positions, row.subtree_end)
    )
    column = torch.arange(len(tokens_L), device=model.device)
    visible = (column <= column[:, None]) & (column[:, None] < end_L)
    cache = DynamicCache()
    output = model.base_model(
        input_ids=tokens_L[None],
        attention_mask=_by_kind(model, visible[None, None], position_L[:, None] - position_L),
        position_ids=position_L[None],
        past_key_values=cache,
        use_cache=True,
    )
    held = [(layer.keys, layer.values) for layer in cache.layers if isinstance(layer, DynamicLayer)]
    return [
        (keys, values) for keys, values in held if keys is not None and values is not None
    ], output.last_hidden_state[0]


def _by_kind(model: PreTrainedModel, visible: Tensor, distance: Tensor) -> Mask:
    """What is visible to which column, in the form that the model's layers take."""
    return by_kind_of_layer(model, lambda window: visible if window is None else visible & (distance < window))


def _logits(model: PreTrainedModel, hidden_RD: Tensor) -> Tensor:
    """The logits of the next token, float32 or wider, shape (R, V)."""
    head: nn.Linear = model.get_output_embeddings()
    making = LogitTransform.of(model).made_in(hidden_RD)
    if making.dtype is torch.float32:  # nothing is rounded: by the layer itself, whose weights may be in order
        return making.after(head(hidden_RD))
    return making.logits(hidden_RD, head.weight, head.bias)
