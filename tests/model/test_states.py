"""Hidden states at the states of answers, as stock transformers has them of one sequence at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import SHAREABLE, build
from tiny_runs import examples_for

from tiltlm.model.scorer import Scorer
from tiltlm.model.states import depths, hidden_states
from tiltlm.objectives import OBJECTIVES


@pytest.mark.parametrize("family", list(SHAREABLE))
@pytest.mark.parametrize("budget", [40, 4096])
def test_they_are_those_of_each_sequence_alone(family: str, budget: int) -> None:
    columns = replace(examples_for(OBJECTIVES["pcl"].needs, 6), credit=None)
    scorer = Scorer(build(SHAREABLE[family]()).eval())
    layers = depths(scorer)
    done: list[int] = []
    found = hidden_states(scorer, columns, layers, torch.float32, budget, done.append)
    assert sum(done) == len(columns)
    stock = build(SHAREABLE[family]()).eval()
    stock.load_state_dict(scorer.model.state_dict())
    for number in range(columns.sequences):
        ids, first = torch.from_numpy(columns.sequence(number).ids).long(), int(columns.first_scored[number])
        with torch.no_grad():
            whole = stock(input_ids=ids[None], output_hidden_states=True, use_cache=False).hidden_states
        own = slice(columns.scored_starts[number], columns.scored_starts[number + 1])
        for values, layer in zip(found, layers, strict=True):
            wanted = whole[layer + 1][0, first - 1 : -1].numpy()
            if layer + 1 < len(whole) - 1:  # the last is given after the final norm
                np.testing.assert_allclose(values[own], wanted, atol=1e-4)
    assert not [hook for module in scorer.model.modules() for hook in module._forward_hooks]
