"""Hidden states at the states of answers, as stock transformers has them of one sequence at a time."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import SHAREABLE, UNSHAREABLE, build
from tiny_runs import examples_for
from transformers import PreTrainedConfig

from tiltlm.errors import ConfigError
from tiltlm.model.scorer import Scorer
from tiltlm.model.states import depths, hidden_states
from tiltlm.objectives import OBJECTIVES


def changed(family: str, **settings: int) -> PreTrainedConfig:
    """The configuration of a family with other settings."""
    config: PreTrainedConfig = SHAREABLE[family]()
    config.update(settings)
    return config


DEEP = changed("llama", num_hidden_layers=8)
NARROW = changed("opt", word_embed_proj_dim=16, num_hidden_layers=4)
"""What its output layer reads is half as wide as its layers are, as in OPT-350M."""
CONFIGURATIONS = {name: make() for name, make in SHAREABLE.items()}
CONFIGURATIONS |= {name: make() for name, (make, _) in UNSHAREABLE.items()}
CONFIGURATIONS |= {"eight layers": DEEP, "a narrow output": NARROW}


def test_layers_are_counted_from_the_middle_and_three_quarters() -> None:
    assert depths(Scorer(build(DEEP).eval())) == (3, 5)


def test_layers_that_cannot_be_told_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer(build(DEEP).eval())
    monkeypatch.setattr(scorer.model, "get_decoder", lambda: scorer.head)
    with pytest.raises(ConfigError, match="cannot be told apart"):
        depths(scorer)


@pytest.mark.parametrize("family", list(CONFIGURATIONS))
@pytest.mark.parametrize("budget", [40, 4096])
def test_they_are_those_of_each_sequence_alone(family: str, budget: int) -> None:
    columns = replace(examples_for(OBJECTIVES["pcl"].needs, 6), credit=None)
    scorer = Scorer(build(copy.deepcopy(CONFIGURATIONS[family])).eval())
    layers = depths(scorer)
    done: list[int] = []
    found = hidden_states(scorer, columns, layers, torch.float32, budget, done.append)
    assert sum(done) == len(columns)
    stock = build(copy.deepcopy(CONFIGURATIONS[family])).eval()
    stock.load_state_dict(scorer.model.state_dict())
    for number in range(columns.sequences):
        ids, first = torch.from_numpy(columns.sequence(number).ids).long(), int(columns.first_scored[number])
        with torch.no_grad():
            whole = stock(input_ids=ids[None], output_hidden_states=True, use_cache=False).hidden_states
        own = slice(columns.scored_starts[number], columns.scored_starts[number + 1])
        for values, layer in zip(found, layers, strict=True):
            after = layer if family == "mamba" else layer + 1  # others give what their first layer reads too
            assert after < len(whole) - 1  # the last is given after the final norm
            np.testing.assert_allclose(values[own], whole[after][0, first - 1 : -1].numpy(), atol=1e-4)
    assert not [hook for module in scorer.model.modules() for hook in module._forward_hooks]
