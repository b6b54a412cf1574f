"""What is said of a rank that is gone or silent, and of an error that has nothing to do with ranks."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch.distributed as dist

from tiltlm.config import DistributedConfig
from tiltlm.distributed import joining
from tiltlm.distributed.joining import joined
from tiltlm.errors import RankError

GONE = (
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:21633: Connection reset by "
    "peer. "
    "This is typically caused by a remote worker hanging."
)
SILENT = (
    "[/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 10000ms for recv operation "
    "to complete"
)


@pytest.fixture(autouse=True)
def one_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(joining, "_join", lambda *given, **named: None)
    monkeypatch.setattr(joining, "_signs_of_life", lambda settings: nullcontext())
    monkeypatch.setattr(dist, "get_rank", lambda: 0)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (GONE, "another rank ended (Read error [127.0.0.1]:21633: Connection reset by peer). What"),
        (SILENT, "gave no answer within 10 minutes (distributed.timeout_minutes) (Timed out waiting 10000ms"),
    ],
    ids=["gone", "silent"],
)
def test_a_lost_rank_is_told_in_words(said: str, words: str) -> None:
    with pytest.raises(RankError) as raised, joined(DistributedConfig(), "cpu"):
        raise RuntimeError(said)
    assert words in str(raised.value)
    assert "gloo/" not in str(raised.value)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes do not match"), joined(DistributedConfig(), "cpu"):
        raise RuntimeError("shapes do not match")


def test_one_process_joins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined(DistributedConfig(), "cpu") as ranks:
        assert (ranks.first, ranks.several) == (True, False)
        values = [1, 2]
        assert ranks.agreed(values) is values
        assert ranks.gathered(values) == [values]
        assert ranks.any(True) and not ranks.any(False)
