"""A start of a job has a name that all its ranks have, whatever earlier starts left in the store."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from torch._C._distributed_c10d import HashStore

from tiltlm.distributed.joining import agreed_start
from tiltlm.errors import RankError
from tiltlm.pipeline.ranks_at_work import JOB, begun_by_this_job, sign
from tiltlm.runs.folder import RunFolder


def start(store: HashStore, count: int, late: dict[int, float]) -> list[str]:
    names: dict[int, str] = {}

    def come(rank: int) -> None:
        time.sleep(late.get(rank, 0))
        names[rank] = agreed_start(store, rank, count, 10)

    ranks = [threading.Thread(target=come, args=(rank,)) for rank in range(count)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    return [names[rank] for rank in range(count)]


@pytest.mark.parametrize("late", [{}, {0: 0.2}, {2: 0.2}, {1: 0.2, 2: 0.1}], ids=["at once", "first", "last", "others"])
def test_all_ranks_agree_at_every_start(late: dict[int, float]) -> None:
    """The first rank sees numbers of an earlier start before the others show their new ones."""
    store = HashStore()
    before = start(store, 3, {})
    after = start(store, 3, late)
    assert len(set(before)) == len(set(after)) == 1
    assert before[0] != after[0]


def test_a_rank_that_does_not_come_is_said() -> None:
    with pytest.raises(RankError, match="not all ranks have come"):
        agreed_start(HashStore(), 0, 2, 0.1)
    with pytest.raises(RankError, match="rank 0 has not come"):
        agreed_start(HashStore(), 1, 2, 0.1)


def test_a_job_goes_on_with_its_own_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    sign(RunFolder(tmp_path))
    found = begun_by_this_job(tmp_path)
    assert found is not None and found.run == tmp_path
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    assert begun_by_this_job(tmp_path) is None
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    assert begun_by_this_job(tmp_path) is None
    assert (tmp_path / JOB).is_file()


def test_one_process_signs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    sign(RunFolder(tmp_path))
    assert not any(tmp_path.iterdir())
