"""How a process joins the job that torchrun started it for, and what becomes of it when another rank is lost."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from tiltlm.config.distributed_config import DistributedConfig
from tiltlm.distributed.ranks import ALONE, Ranks
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
        yield _these(count)
        return
    try:
        _join(settings, count, on_gpus=device in ("auto", "cuda") and torch.cuda.is_available())
        yield _these(count)
    except (RuntimeError, dist.DistError) as error:
        if not _tells_of_loss(error):
            raise
        raise RankError(
            f"{_loss_in_words(error, settings)}. What that rank said stands above or in its own log, and torchrun "
            "names it; the last checkpoint is whole."
        ) from error
    finally:
        with suppress(Exception):  # of ranks that are gone nobody takes leave
            dist.destroy_process_group()


def _restarts() -> int:
    """How many times torchrun has started the job anew."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0)


def _these(count: int) -> Ranks:
    return Ranks(dist.get_rank(), count, beside_first=_number("GROUP_RANK", 0) == 0)


def _join(settings: DistributedConfig, count: int, on_gpus: bool) -> None:
    if on_gpus:
        torch.cuda.set_device(_number("LOCAL_RANK", 0))
    timeout = timedelta(minutes=settings.timeout_minutes)
    store, rank, _ = next(rendezvous("env://", timeout=timeout))
    store.set_timeout(timeout)
    # Names of their own for each start: addresses that an earlier start left in the store are of processes that ended.
    own = PrefixStore(f"start {_restarts()}", store)
    backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
    dist.init_process_group(backend, store=own, rank=rank, world_size=count, timeout=timeout)


def _tells_of_loss(error: BaseException) -> bool:
    said = str(error).lower()
    return any(words in said for words in (*_SILENT, *_GONE))


def _loss_in_words(error: BaseException, settings: DistributedConfig) -> str:
    """What became of the other rank, with the first sentence of the library, without the place in its source."""
    said = re.sub(r"^\[[^]]*\.\w+:\d+\] ", "", str(error).strip().splitlines()[0]).partition(". ")[0].rstrip(".")
    if any(words in str(error).lower() for words in _GONE):
        return f"another rank ended ({said})"
    minutes = f"{settings.timeout_minutes:.3g} minutes (distributed.timeout_minutes)"
    return f"another rank gave no answer within {minutes} ({said})"


def _number(name: str, default: int) -> int:
    return int(os.environ.get(name, default))
