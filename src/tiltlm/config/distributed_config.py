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
    offload: bool = False
    """Shares lie in the machine's memory, where the optimizer works too; a layer is on the device while it is at work.
    For models whose shares no device holds; a step takes as long as all weights take to go there twice."""
    timeout_minutes: Positive = 10.0
    """After so many minutes without an answer from a rank the job ends with an error."""
