"""A trainer's state in files: what is read is what was written, to the bit, and nothing of it is run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiltlm.checkpoints.state_files import FILES, WEIGHTS, put_together, read_state, taken_apart, write_state
from tiltlm.training.state import Progress, TrainerState, random_states

DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool)
tensors = st.builds(
    lambda shape, dtype, seed: torch.randint(0, 9, shape, generator=torch.Generator().manual_seed(seed)).to(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(DTYPES),
    st.integers(0, 9),
)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4)
keys = st.integers(0, 9) | st.text(max_size=4)
nested = st.recursive(
    plain | tensors,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=8,
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # tensors are slow to make at first
@given(st.dictionaries(st.sampled_from("abcd"), nested, max_size=4))
def test_containers_come_back_with_their_kinds(value: dict[str, Any]) -> None:
    structure, parts = taken_apart(value)
    assert same(put_together(structure, parts), value)


def test_no_two_tensors_share_a_name() -> None:
    value = {"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}, "1": torch.ones(2), 1: torch.ones(3)}
    structure, parts = taken_apart(value)
    assert same(put_together(structure, parts), value)


def test_a_state_comes_back_to_the_bit(tmp_path: Path) -> None:
    weight = torch.tensor([1.0, float("nan"), -0.0, 1e-42])
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": weight * 2}}, "param_groups": [{"lr": 0.1}]}
    state = TrainerState({"w.weight": weight}, optimizer, Progress(3, 12, 400, 0.1 + 0.2), random_states())
    write_state(state, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)
    again = read_state(tmp_path)
    assert again.model["w.weight"].view(torch.int32).tolist() == weight.view(torch.int32).tolist()
    assert again.progress == state.progress
    assert same(again.random, state.random)
    assert list(again.optimizer["state"]) == [0]


def test_weights_of_any_layout_are_written(tmp_path: Path) -> None:
    crossed = torch.arange(6.0).reshape(2, 3).T
    write_state(TrainerState({"w": crossed}, {}, Progress(), {}), tmp_path)
    assert torch.equal(read_state(tmp_path).model["w"], crossed)


class Evil:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", FILES)
def test_a_pickle_in_place_of_a_file_is_not_loaded(tmp_path: Path, name: str) -> None:
    write_state(TrainerState({"w": torch.ones(1)}, {}, Progress(), {}), tmp_path)
    (tmp_path / name).write_bytes(pickle.dumps(Evil(tmp_path / "was run")))
    with pytest.raises(Exception, match=r".") as raised:
        read_state(tmp_path)
    assert not (tmp_path / "was run").exists()
    assert raised.type.__name__ in ("SafetensorError", "UnicodeDecodeError", "JSONDecodeError")


def test_weights_are_a_file_that_others_read(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    write_state(TrainerState({"w": torch.ones(2)}, {}, Progress(), {}), tmp_path)
    assert torch.equal(load_file(tmp_path / WEIGHTS)["w"], torch.ones(2))
