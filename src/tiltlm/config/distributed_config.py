"""The section [distributed]: how the processes of one job share out a model."""

from __future__ import annotations

from tiltlm.config.declaring import NotNegativeInt, Positive, section


@section("distributed")
class DistributedConfig:
    """Several processes that `torchrun` starts, each a rank (docs/scale.md). Without torchrun nothing here has an
    effect."""

    shard: NotNegativeInt = 0
    """Over how many ranks weights, gradients and the optimizer's numbers are shared out; ranks beyond are replicas of
    these, so give the ranks of a node. 0: over all. 1: every rank holds all of them."""
    timeout_minutes: Positive = 10.0
    """After so many minutes without an answer from a rank the job ends with an error."""
