"""What cannot be done by several ranks is refused, and what one process alone is asked for is not."""

from __future__ import annotations

import pytest

from tiltlm.cli import main
from tiltlm.config import DistributedConfig
from tiltlm.distributed.ranks import ALONE, Ranks
from tiltlm.distributed.sharding import require_possible
from tiltlm.errors import ConfigError


@pytest.mark.parametrize(
    ("shard", "ranks", "quantised", "words"),
    [
        (3, 4, False, "4 ranks are no multiple of it"),
        (8, 4, False, "4 ranks are no multiple of it"),
        (0, 2, True, "adapter.quantise"),
    ],
    ids=["uneven", "too many", "fewer bits"],
)
def test_it_is_refused(shard: int, ranks: int, quantised: bool, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        require_possible(DistributedConfig(shard=shard), Ranks(1, ranks), quantised)
    require_possible(DistributedConfig(shard=shard), ALONE, quantised)


def test_one_process_has_no_shares_to_offload() -> None:
    with pytest.raises(ConfigError, match="torchrun"):
        require_possible(DistributedConfig(offload=True), ALONE, False)
    require_possible(DistributedConfig(offload=True), Ranks(0, 2), False)


@pytest.mark.parametrize("shard", [0, 1, 2, 4])
def test_what_comes_out_even_is_not(shard: int) -> None:
    require_possible(DistributedConfig(shard=shard), Ranks(0, 4), False)


def test_commands_of_one_process_say_so_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert main(["plan"]) == 2
    assert capsys.readouterr().err.count("`tiltlm plan` is a command of one process") == 1
