"""A checkpoint that several ranks write together, each its shares, while training goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from torch.distributed import ProcessGroup

from tiltlm.checkpoints.checkpoint_folder import Circumstances, completed, described, unfinished
from tiltlm.checkpoints.share_files import begin_shares, files_of_rank, written
from tiltlm.checkpoints.state_files import SharedState
from tiltlm.distributed.ranks import Ranks
from tiltlm.runs.checkpoint_record import StoredFile
from tiltlm.training.state import TrainerState


def begin_together(
    folder: Path,
    state: TrainerState,
    circumstances: Circumstances,
    ranks: Ranks,
    group: ProcessGroup,
    ready: Callable[[], None] = lambda: None,
) -> Callable[[], None]:
    """Begins a checkpoint, of which it has a copy once this returns. What is left to do, which all ranks do, maybe in a
    thread: it raises OSError on all of them where one could not write its shares, on the first one where that could not
    make a checkpoint of them.

    Args:
        folder: of the run's checkpoints, for the first rank.
        group: see `Ranks.beside`.
        ready: what the first rank does before, which raises OSError where it cannot.
    """
    step, held = state.progress.step, ExitStack()
    aside, fault = None, ""
    if ranks.first:
        try:
            aside = held.enter_context(unfinished(folder.absolute(), step))
        except OSError as error:
            fault = str(error)
    aside, fault = ranks.agreed((aside, fault))
    if aside is None:
        return _failing(fault)
    parts = SharedState.of(state)
    begun = begin_shares(parts.shared, aside, group)

    def finish() -> None:
        with held:
            written(begun)
            every = ranks.gathered(_described(aside, ranks.rank, ready if ranks.first else None), group)
            faults = [said for said in every if isinstance(said, str)]
            files = {name: stored for said in every if isinstance(said, dict) for name, stored in said.items()}
            if ranks.first:
                faults += [f"{name} is not there: all machines must share its disk" for name in _absent(aside, files)]
            if faults:
                raise OSError(f"{aside}: {faults[0]}")
            if ranks.first:
                rest = {name: described(aside / name) for name in parts.write_rest(aside)}
                completed(aside, step, circumstances, files | rest)

    return finish


def _described(aside: Path, rank: int, ready: Callable[[], None] | None) -> dict[str, StoredFile] | str:
    """This rank's files, or why it cannot read them, or not do what is to be done before."""
    try:
        if ready is not None:
            ready()
        return {name: described(aside / name) for name in files_of_rank(aside, rank)}
    except OSError as error:
        return str(error)


def _absent(aside: Path, files: dict[str, StoredFile]) -> list[str]:
    return [name for name in files if not (aside / name).is_file()]


def _failing(fault: str) -> Callable[[], None]:
    def finish() -> None:
        raise OSError(fault)

    return finish
