"""Runs a function on several ranks, each a process of its own, and gives what each returned."""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import os
import pickle
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.queues import Queue
from typing import Any

import torch
import torch.distributed as dist

from tiltlm.config import DistributedConfig
from tiltlm.distributed.joining import joined

_PATIENCE = 240
"""Seconds after which ranks that have not ended are ended."""


def on_ranks(count: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work(ranks, *arguments)` returns on each of so many ranks.

    work: a function of a module that can be imported.
    """
    forking = _forking()
    results: Queue[tuple[int, bool, bytes]] = forking.Queue()
    port = _free_port()
    made = [forking.Process(target=_one, args=(rank, count, port, results, work, arguments)) for rank in range(count)]
    for process in made:
        process.start()
    found: dict[int, Any] = {}
    try:
        for _ in made:
            rank, succeeded, said = results.get(timeout=_PATIENCE)
            value = pickle.loads(said)
            assert succeeded, f"rank {rank}: {value}"
            found[rank] = value
    finally:
        for process in made:
            process.join(5 if len(found) == count else 0)
            process.kill()
    return [found[rank] for rank in range(count)]


def _forking() -> multiprocessing.context.ForkServerContext:
    """Processes are forked from one that has imported what they need, once for all tests."""
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["rank_work"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # Python 3.11 does not tell it where to import from
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return forking


def _one(
    rank: int, count: int, port: int, results: Queue[tuple[int, bool, bytes]], work: Any, arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        with joined(DistributedConfig(timeout_minutes=2), "cpu") as ranks:
            said = pickle.dumps(work(ranks, *arguments))
            if ranks.several:
                dist.barrier()  # the first one keeps what they find each other by
        results.put((rank, True, said))
    except BaseException:
        results.put((rank, False, pickle.dumps(traceback.format_exc())))


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
    return port
