"""Checkpoints that ranks write together: whole or not there, whoever could not write its part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import rank_work
import torch
from rank_work import Training
from several_ranks import on_ranks

from tiltlm.checkpoints import share_files
from tiltlm.checkpoints.checkpoint_folder import Circumstances, checkpoints_in, verified
from tiltlm.checkpoints.shared_checkpoint import begin_together
from tiltlm.checkpoints.state_files import read_state
from tiltlm.distributed.ranks import Ranks
from tiltlm.distributed.shares import whole
from tiltlm.runs.checkpoint_record import StoredFile

OF_NOTHING = Circumstances(StoredFile(bytes=0, xxh3_128=""), None, {}, {})
HERE = "tiltlm.checkpoints.shared_checkpoint"
FAULTS = {
    "no folder": (0, f"{HERE}.unfinished"),
    "no shares of the first": (0, "tiltlm.checkpoints.share_files.HuggingFaceStorageWriter.write_data"),
    "no shares of another": (1, "tiltlm.checkpoints.share_files.HuggingFaceStorageWriter.write_data"),
    "shares cannot be read": (1, f"{HERE}.described"),
    "no record": (0, f"{HERE}.completed"),
}


def tried(ranks: Ranks, folder: Path, faults: Sequence[str]) -> list[tuple[str, int]]:
    """What each fault's checkpoint said and how many entries were left; then that of one without a fault."""
    made, group, found = rank_work.trainer(ranks, Training()), ranks.beside(), []
    assert group is not None
    for fault in (*faults, None):
        said = ""
        with pytest.MonkeyPatch.context() as patch:
            if fault is not None and FAULTS[fault][0] == ranks.rank:
                patch.setattr(FAULTS[fault][1], _no_room)
            try:
                begin_together(folder, made.state(), OF_NOTHING, ranks, group)()
            except OSError as error:
                said = str(error)
        ranks.wait_for_all()
        found.append((said, len(list(folder.iterdir())) if folder.is_dir() else 0))
        ranks.wait_for_all()
    return found


def _no_room(*arguments: object, **named: object) -> None:
    raise OSError(28, "No space left on device")


def test_one_that_cannot_be_written_leaves_nothing_and_the_next_is_whole(tmp_path: Path) -> None:
    first, second = on_ranks(2, tried, tmp_path / "checkpoints", list(FAULTS))
    for fault, (said, left), (others, _) in zip(FAULTS, first, second, strict=False):
        assert "No space left on device" in said and left == 0, fault
        assert "No space left on device" in others or fault == "no record", fault
    assert first[-1] == ("", 1) == second[-1]
    assert verified(checkpoints_in(tmp_path / "checkpoints")[0]).step == 0


def in_small_files(ranks: Ranks, folder: Path) -> dict[str, torch.Tensor]:
    made, group = rank_work.trainer(ranks, Training()), ranks.beside()
    assert group is not None
    made.to_be_filled()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(share_files, "FILE_BYTES", 4096)
        begin_together(folder, made.state(), OF_NOTHING, ranks, group)()
    return {name: whole(own.detach()) for name, own in made.scorer.trained().items()}


def test_shares_lie_in_files_of_bounded_size(tmp_path: Path) -> None:
    """As one of them at a time is in memory once more."""
    weights = on_ranks(2, in_small_files, tmp_path)[0]
    (checkpoint,) = checkpoints_in(tmp_path)
    sizes = [path.stat().st_size for path in checkpoint.glob("shard-*.safetensors")]
    largest = max(own.nbytes for own in weights.values())
    assert len(sizes) > 8 and max(sizes) < 4096 + largest + 4096
    state = read_state(checkpoint)
    assert all(torch.equal(state.model[name], own) for name, own in weights.items())
    assert verified(checkpoint).files.keys() == {path.name for path in checkpoint.iterdir()} - {"checkpoint.json"}
