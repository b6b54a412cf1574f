"""DPO as one writes it down first: what every idea of this program is measured against.

Each half of the pairs is a padded batch of its own, prompts and all; logits are kept whole; the reference is a second
model, run in every step. It is plain PyTorch and transformers, and kept honest: the same pairs in the same batches, the
same arithmetic, the same optimizer, no dropout, and no gradient where none is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from tiltlm.data.tokens.token_columns import TokenizedExample, TokenizedSequence


def completion_logps(model: PreTrainedModel, sequences: Sequence[TokenizedSequence]) -> Tensor:
    """log pi(completion | prompt) of each sequence in nats, float32, shape (sequences,)."""
    ids = pad_sequence([torch.from_numpy(one.ids).long() for one in sequences], batch_first=True).to(model.device)
    column = torch.arange(ids.shape[1], device=model.device)
    ends = torch.tensor([len(one.ids) for one in sequences], device=model.device)[:, None]
    starts = torch.tensor([one.first_scored for one in sequences], device=model.device)[:, None]
    logits = model(input_ids=ids, attention_mask=(column < ends).long(), use_cache=False).logits
    logps = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    scored = (column >= starts) & (column < ends)
    sums: Tensor = (logps * scored[:, 1:]).sum(-1)
    return sums


def naive_loss(
    policy: PreTrainedModel, reference: PreTrainedModel, pairs: Sequence[TokenizedExample], beta: float
) -> Tensor:
    """The mean DPO loss of some pairs: -log sigmoid(beta * h), h the difference of the two log-ratios.

    Source: arXiv 2305.18290, eq. 7.
    """
    chosen, rejected = [pair.chosen for pair in pairs], [pair.rejected for pair in pairs]
    with torch.no_grad():
        known = completion_logps(reference, chosen) - completion_logps(reference, rejected)
    margin = completion_logps(policy, chosen) - completion_logps(policy, rejected) - known
    return -F.logsigmoid(beta * margin).mean()
