"""What cannot be done by several ranks is refused, and what one process alone is asked for is not."""

from __future__ import annotations

import pytest
import torch

from tiltlm.cli import main
from tiltlm.config import DistributedConfig
from tiltlm.distributed.ranks import ALONE, Ranks
from tiltlm.distributed.sharding import require_possible
from tiltlm.errors import ConfigError

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("settings", "ranks", "device", "quantised", "words"),
    [
        (DistributedConfig(shard=3), 4, CPU, False, "4 ranks are no multiple of it"),
        (DistributedConfig(shard=8), 4, CPU, False, "4 ranks are no multiple of it"),
        (DistributedConfig(offload=True), 2, CPU, False, "distributed.offload has no effect on a CPU"),
        (DistributedConfig(), 2, GPU, True, "adapter.quantise"),
    ],
    ids=["uneven", "too many", "nowhere to offload", "fewer bits"],
)
def test_it_is_refused(
    settings: DistributedConfig, ranks: int, device: torch.device, quantised: bool, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        require_possible(settings, Ranks(1, ranks), device, quantised)
    require_possible(settings, ALONE, device, quantised)


@pytest.mark.parametrize(
    "settings",
    [DistributedConfig(), DistributedConfig(shard=2), DistributedConfig(shard=1), DistributedConfig(shard=4)],
)
def test_what_comes_out_even_is_not(settings: DistributedConfig) -> None:
    require_possible(settings, Ranks(0, 4), CPU, False)


def test_commands_of_one_process_say_so_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert main(["plan"]) == 2
    assert capsys.readouterr().err.count("`tiltlm plan` is a command of one process") == 1
