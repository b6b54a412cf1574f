"""How a process joins the job that torchrun started it for, and what becomes of it when another rank is lost."""

from __future__ import annotations

import itertools
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from uuid import uuid4

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from tiltlm.config.distributed_config import DistributedConfig
from tiltlm.distributed.ranks import ALONE, LIFE, Ranks
from tiltlm.errors import RankError

_SILENT = ("timed out", "timeout")
_GONE = ("connection closed", "connection reset", "broken pipe", "recvvalue failed")
"""What errors of a collective say, in small letters, where another rank is silent, or gone."""


@contextmanager
def joined(settings: DistributedConfig, device: str) -> Iterator[Ranks]:
    """This process among the ranks that torchrun started; alone where it started none, or one. Within, it is joined
    already.

    device: the setting model.device.

    Raises:
        RankError: another rank ended, or gave no answer in time.
    """
    count = _number("WORLD_SIZE", 1)
    if count == 1:
        yield ALONE
        return
    if dist.is_initialized():
        yield _these(count, settings)
        return
    try:
        _join(settings, count, on_gpus=device in ("auto", "cuda") and torch.cuda.is_available())
        with _signs_of_life(settings):
            yield _these(count, settings)
    except (RuntimeError, dist.DistError) as error:
        if not _tells_of_loss(error):
            raise
        raise RankError(
            f"{_loss_in_words(error, settings)}. What that rank said stands above or in its own log, and torchrun "
            "names it; the last checkpoint is whole."
        ) from error
    # A rank that failed takes no leave, which could wait for the others; and these may have gone already.
    with suppress(Exception):
        dist.destroy_process_group()


def job() -> str | None:
    """What this start of a job has in common with those that torchrun makes anew after a rank was lost, and with no
    other job: its name, and the torchrun process on the machine of the first rank. None where torchrun started nothing.
    """
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    return None if name is None else f"{name} {socket.gethostname()} {os.getppid()}"


def _these(count: int, settings: DistributedConfig) -> Ranks:
    return Ranks(
        dist.get_rank(),
        count,
        beside_first=_number("GROUP_RANK", 0) == 0,
        patience=60 * settings.timeout_minutes,
        on_machine=_number("LOCAL_WORLD_SIZE", count),
    )


def _join(settings: DistributedConfig, count: int, on_gpus: bool) -> None:
    if on_gpus:
        torch.cuda.set_device(_number("LOCAL_RANK", 0))
    timeout = timedelta(minutes=settings.timeout_minutes)
    store, rank, _ = next(rendezvous("env://", timeout=timeout))
    store.set_timeout(timeout)
    own = PrefixStore(agreed_start(store, rank, count, timeout.total_seconds()), store)
    backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
    dist.init_process_group(backend, store=own, rank=rank, world_size=count, timeout=timeout)


def agreed_start(store: Store, rank: int, count: int, patience: float) -> str:
    """A name for this start of the job that all its ranks have, and no earlier start had.

    The store outlives starts, and what an earlier one left in it, such as addresses of processes that ended, must not
    be taken for this one's. How often a machine's ranks were started is no such name: it differs between machines. So
    each rank shows a number of its own, and the first one answers whatever it sees until all have confirmed its answer.

    Raises:
        RankError: not all ranks have come within so many seconds.
    """
    own, until = uuid4().hex, time.monotonic() + patience
    if rank == 0:
        answered: dict[int, str] = {}
        while True:
            for other in range(1, count):
                seen = store.get(f"here {other}").decode() if store.check([f"here {other}"]) else None
                if seen is not None and seen != answered.get(other):
                    store.set(f"answer {seen}", own)
                    answered[other] = seen
            if all(store.check([f"confirmed {own} {other}"]) for other in range(1, count)):
                return own
            _wait_until(until, "not all ranks have come")
    store.set(f"here {rank}", own)
    while not store.check([f"answer {own}"]):
        _wait_until(until, "rank 0 has not come")
    start = store.get(f"answer {own}").decode()
    store.set(f"confirmed {start} {rank}", "")
    return start


def _wait_until(until: float, words: str) -> None:
    if time.monotonic() > until:
        raise RankError(f"{words} within distributed.timeout_minutes: is torchrun started on every machine?")
    time.sleep(0.02)


@contextmanager
def _signs_of_life(settings: DistributedConfig) -> Iterator[None]:
    """Within, this rank shows those that wait for it that it lives."""
    ended, own, store = threading.Event(), LIFE.format(dist.get_rank()), distributed_c10d._get_default_store()

    def show() -> None:
        for number in itertools.count():
            with suppress(Exception):  # a store that is gone is noticed by whoever needs it
                store.set(own, str(number))
            if ended.wait(min(5.0, 15 * settings.timeout_minutes)):
                return

    showing = threading.Thread(target=show, name="signs of life", daemon=True)
    showing.start()
    try:
        yield
    finally:
        ended.set()
        showing.join()


def _tells_of_loss(error: BaseException) -> bool:
    if isinstance(error, dist.DistBackendError | dist.DistNetworkError):
        return True
    said = str(error).lower()
    return any(words in said for words in (*_SILENT, *_GONE))


def _loss_in_words(error: BaseException, settings: DistributedConfig) -> str:
    """What became of the other rank, with the first sentence of the library, without the place in its source."""
    said = re.sub(r"^\[[^]]*\.\w+:\d+\] ", "", str(error).strip().splitlines()[0]).partition(". ")[0].rstrip(".")
    if any(words in str(error).lower() for words in _GONE):
        return f"another rank ended ({said})"
    if any(words in str(error).lower() for words in _SILENT):
        minutes = f"{settings.timeout_minutes:.3g} minutes (distributed.timeout_minutes)"
        return f"another rank gave no answer within {minutes} ({said})"
    return f"the ranks could not reach each other ({said})"


def _number(name: str, default: int) -> int:
    return int(os.environ.get(name, default))
