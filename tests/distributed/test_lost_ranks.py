"""What is said of a rank that is gone or silent, and of an error that has nothing to do with ranks."""

from __future__ import annotations

import itertools
import threading
import time
from contextlib import nullcontext

import pytest
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from tiltlm.config import DistributedConfig
from tiltlm.distributed import joining, ranks
from tiltlm.distributed.joining import joined
from tiltlm.distributed.ranks import LIFE, Ranks
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
    with joined(DistributedConfig(), "cpu") as alone:
        assert (alone.first, alone.several) == (True, False)
        values = [1, 2]
        assert alone.agreed(values) is values
        assert alone.gathered(values) == [values]
        assert alone.any(True) and not alone.any(False)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> HashStore:
    made = HashStore()
    monkeypatch.setattr(ranks, "_store", lambda: made)
    monkeypatch.setattr(ranks, "_TIMES", itertools.count())
    return made


@pytest.mark.parametrize(("own", "silent"), [(0, 2), (1, 0)], ids=["the first waits", "another waits"])
def test_a_rank_that_stands_still_is_given_up(store: HashStore, own: int, silent: int) -> None:
    """Whoever waits for it: a stopped machine closes no connection."""
    for rank in {0, 1, 2} - {own, silent}:
        store.set(f"{rank} came 0", "")
    store.set(LIFE.format(silent), "7")
    with pytest.raises(RankError, match=f"rank {silent} has given no sign of life"):
        Ranks(own, 3, patience=0.4).wait_for_all()


def test_one_that_lives_is_waited_for_beyond_that(store: HashStore) -> None:
    def live() -> None:
        for number in range(12):
            store.set(LIFE.format(1), str(number))
            time.sleep(0.1)
        store.set("1 came 0", "")

    start, living = time.monotonic(), threading.Thread(target=live)
    living.start()
    Ranks(0, 2, patience=0.4).wait_for_all()
    living.join()
    assert time.monotonic() - start > 1
