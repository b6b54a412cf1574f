"""What can be measured: training as it is, with one idea switched off, and as others do it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Maker = Literal["ours", "naive", "trl"]


@dataclass(frozen=True, slots=True)
class System:
    """A way to train.

    words: what it is, in a table. live: whether the reference's values are computed in the training that is timed.
    precision: the arithmetic, where it is not that of the settings.
    """

    name: str
    words: str
    maker: Maker = "ours"
    live: bool = False
    precision: Literal["float32"] | None = None


OURS, LIVE = "ours", "ours-live"
COMPARED = (
    System(OURS, "tiltlm, reference cached"),
    System(LIVE, "tiltlm, reference computed", live=True),
    System("naive", "naive loop, live reference", maker="naive", live=True),
    System("trl", "TRL, reference precomputed", maker="trl"),
    System("trl-live", "TRL, live reference", maker="trl", live=True),
)
"""What a benchmark compares."""
ABLATED = (
    System("no-sharing", "without shared prefixes"),
    System("no-packing", "without packing: a pair a pass"),
    System("dense-mask", "attention under a dense mask"),
    System("no-scored-list", "output layer on every token"),
    System("no-chunked-head", "logits kept whole"),
    System("float32", "in float32", precision="float32"),
    System("compiled", "layers compiled"),
)
"""Training with one idea changed. Without a cached reference it is `ours-live`."""
SYSTEMS = {one.name: one for one in (*COMPARED, *ABLATED)}
QUOTIENTS = (
    (OURS, "trl"),
    (LIVE, "trl-live"),
    (OURS, "naive"),
    (LIVE, "naive"),
    *((one.name, OURS) for one in ABLATED),
    (LIVE, OURS),
)
"""Which are compared with which, in the same round."""
