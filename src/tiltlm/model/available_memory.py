"""How much memory may still be taken: what the machine has free, within the limits of the process's control groups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from tiltlm.distributed.ranks import Ranks
from tiltlm.model.memory import memory_of

_ROOT = Path("/")
_UNLIMITED = 1 << 60
"""A limit of the first version of control groups that is none."""


def available_memory(device: torch.device, root: Path = _ROOT) -> int | None:
    """Bytes that this process may still take on a device; all that it has where the system says no more, None where it
    says nothing.

    root: where the system's files are.
    """
    if device.type == "cuda":
        on_device, _ = torch.cuda.mem_get_info(device)
        return on_device + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return memory_of(device)
    free = _field(root / "proc/meminfo", "MemAvailable:")
    known = [memory_of(device) if free is None else 1024 * free, *_left_in_groups(root)]
    return min((one for one in known if one is not None), default=None)


def available_to_a_rank(ranks: Ranks, device: torch.device) -> int | None:
    """The same of one of several ranks, where those of a machine have its memory in common."""
    there = available_memory(device)
    return there // ranks.on_machine if there is not None and device.type == "cpu" else there


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each control group that the process is in, and those around them, leave it; caches are given back."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            top, limit, used, cached = "", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top, limit, used = "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached = "total_inactive_file"
        else:
            continue
        whole = root / "sys/fs/cgroup" / top
        own = whole / path.strip("/")
        for group in (own, *own.parents):
            most, taken = _number(group / limit), _number(group / used)
            if most is not None and taken is not None and most < _UNLIMITED:
                yield max(most - taken + (_field(group / "memory.stat", cached) or 0), 0)
            if group == whole:
                break


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isdecimal() else None


def _field(file: Path, name: str) -> int | None:
    words = (line.split() for line in _text(file).splitlines())
    return next((int(line[1]) for line in words if line[:1] == [name] and line[1:2]), None)
