"""Whether a model knows the tokens that its tokenizer makes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.errors import ModelError


def require_embedded(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    sequences: Iterable[tuple[str, Sequence[int] | np.ndarray]],
) -> None:
    """Makes sure that every token has an embedding.

    Args:
        sequences: a name for messages, and token ids.

    Raises:
        ModelError: one has none; the message says whether tokens were added, or the tokenizer is another model's.
    """
    rows = _rows(model)
    for name, ids in sequences:
        largest = max(ids, default=0)
        if largest >= rows:
            raise ModelError(f"{name} has {_why_unknown(tokenizer, int(largest), rows)}")


def require_examples_embedded(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, columns: TokenColumns
) -> None:
    """Makes sure that every token of the examples has an embedding.

    Raises:
        ModelError: as `require_embedded`, naming the first example with one that has none.
    """
    require_examples_known(_rows(model), tokenizer, columns)


def require_examples_known(rows: int, tokenizer: PreTrainedTokenizerFast, columns: TokenColumns) -> None:
    """As `require_examples_embedded`, of a model with so many embeddings that need not be loaded."""
    unknown = np.flatnonzero(columns.ids >= rows)
    if len(unknown):
        sequence = np.searchsorted(columns.bounds, unknown[0], side="right") - 1
        example = int(np.searchsorted(columns.members, sequence, side="right")) - 1
        token = int(columns.ids[unknown[0]])
        raise ModelError(f"{columns.names[example]} has {_why_unknown(tokenizer, token, rows)}")


def _rows(model: PreTrainedModel) -> int:
    return cast(torch.nn.Embedding, model.get_input_embeddings()).num_embeddings


def _why_unknown(tokenizer: PreTrainedTokenizerFast, token: int, rows: int) -> str:
    fact = f"token {token} (`{tokenizer.convert_ids_to_tokens(token)}`), but the model embeds {rows} tokens"
    # `vocab_size` leaves out what was added; a vocabulary that fits without it is this model's.
    if tokenizer.vocab_size <= rows and token in tokenizer.added_tokens_decoder:
        added = sum(number >= rows for number in tokenizer.added_tokens_decoder)
        return (
            f"{fact}: {added} {'token was' if added == 1 else 'tokens were'} added to the tokenizer, and the model's "
            "embeddings were not resized. Do that first, and save the model: "
            f"model.resize_token_embeddings({len(tokenizer)}), model.save_pretrained(FOLDER)."
        )
    return f"{fact}: the tokenizer is another model's. Copy the tokenizer's files from where the model came from."
