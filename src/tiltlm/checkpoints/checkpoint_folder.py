"""One checkpoint: a folder that is whole as soon as it has its name, and that says itself whether it still is."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from tiltlm.checkpoints.state_files import FILES, write_state
from tiltlm.errors import RunError
from tiltlm.runs.checkpoint_record import CheckpointRecord, StoredFile
from tiltlm.runs.rows import EvalRow
from tiltlm.runs.schema import MalformedError, NewerSchemaError, from_json, versioned
from tiltlm.storage.whole_files import put_in_place
from tiltlm.training.state import TrainerState

RECORD = "checkpoint.json"
_CHECKSUM = "checksum"
_CHUNK = 1 << 24
_NAME = re.compile(r"step-(\d{8,})")
_UNFINISHED, _REMOVED, _UNUSED = ".unfinished-", ".removed-", "unused-"


class DamagedError(Exception):
    """A checkpoint is not what was written; the message says what is wrong with which file."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a checkpoint records beside the state: see `CheckpointRecord`."""

    metrics: StoredFile
    held_out: EvalRow | None
    settings: Mapping[str, str]
    identity: Mapping[str, str]


def write_checkpoint(folder: Path, state: TrainerState, circumstances: Circumstances) -> Path:
    """Writes a checkpoint into a run's folder of checkpoints: aside, read back for its checksums, synced to the disk,
    then named in one move.

    Raises:
        OSError, SafetensorError: it cannot be written; nothing of it is left, and no other checkpoint has changed.
    """
    with unfinished(folder, state.progress.step) as aside:
        write_state(state, aside)
        return completed(aside, state.progress.step, circumstances, {file: described(aside / file) for file in FILES})


@contextmanager
def unfinished(folder: Path, step: int) -> Iterator[Path]:
    """A new folder for the files of a checkpoint; of one that does not come to be completed nothing is left."""
    aside = folder / f"{_UNFINISHED}{_name(step)}"
    folder.mkdir(exist_ok=True)
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir()
        yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def completed(aside: Path, step: int, circumstances: Circumstances, files: Mapping[str, StoredFile]) -> Path:
    """Gives an unfinished checkpoint, all of whose files are written, its record and its name; its folder."""
    record = CheckpointRecord(
        step=step,
        metrics=circumstances.metrics,
        held_out=circumstances.held_out,
        settings=dict(circumstances.settings),
        identity=dict(circumstances.identity),
        files=dict(files),
    )
    table = versioned(dataclasses.asdict(record))
    (aside / RECORD).write_text(json.dumps({**table, _CHECKSUM: _checksum_of(table)}, indent=1), encoding="utf-8")
    place = aside.with_name(_name(step))
    remove(place)
    put_in_place(aside, place)
    return place


def _name(step: int) -> str:
    return f"step-{step:08d}"


def read_record(checkpoint: Path) -> CheckpointRecord:
    """What a checkpoint says of itself.

    Raises:
        DamagedError: it says nothing that can be read, or something else than was written.
        RunError: a later version wrote it.
        OSError: the disk gives it not, which says nothing of it.
    """
    try:
        text = (checkpoint / RECORD).read_bytes()
        table = json.loads(text)
        if not isinstance(table, dict) or table.pop(_CHECKSUM, None) != _checksum_of(table):
            raise DamagedError(f"{RECORD} has changed since it was written")
        return from_json(CheckpointRecord, text)
    except FileNotFoundError as error:
        raise DamagedError(f"{RECORD} is missing") from error
    except NewerSchemaError as error:
        raise RunError(f"{checkpoint / RECORD}: {error}.") from error
    except (ValueError, MalformedError) as error:
        raise DamagedError(f"{RECORD}: {error}") from error


def verified(checkpoint: Path) -> CheckpointRecord:
    """What a checkpoint says of itself, after all of it was read and found whole and unchanged.

    Raises:
        DamagedError: it is not.
        RunError, OSError: as `read_record`.
    """
    record = read_record(checkpoint)
    for name, stored in record.files.items():
        try:
            found = described(checkpoint / name)
        except FileNotFoundError as error:
            raise DamagedError(f"{name} is missing") from error
        if found.bytes != stored.bytes:
            raise DamagedError(f"{name} has {found.bytes} bytes, and was written with {stored.bytes}")
        if found != stored:
            raise DamagedError(f"{name} has changed since it was written (its checksum differs)")
    return record


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints in a run's folder of checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    named = [(int(found[1]), path) for path in folder.iterdir() if (found := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(named)]


def remove(checkpoint: Path) -> None:
    """Removes a checkpoint; killed on the way, it leaves no folder that looks like one."""
    if checkpoint.is_symlink():
        checkpoint.unlink()
    elif checkpoint.exists():
        gone = checkpoint.with_name(f"{_REMOVED}{checkpoint.name}")
        shutil.rmtree(gone, ignore_errors=True)
        checkpoint.rename(gone)
        shutil.rmtree(gone)


def set_aside(checkpoint: Path) -> Path:
    """Gives a checkpoint that is not gone on from a name that is none's, for a person to look at or remove."""
    place = checkpoint.with_name(f"{_UNUSED}{checkpoint.name}")
    shutil.rmtree(place, ignore_errors=True)
    checkpoint.rename(place)
    return place


def sweep(folder: Path) -> None:
    """Removes what a killed process left half written or half removed."""
    for path in folder.glob(".*") if folder.is_dir() else ():
        if path.name.startswith((_UNFINISHED, _REMOVED)):
            shutil.rmtree(path, ignore_errors=True)


def described(file: Path, limit: int | None = None) -> StoredFile:
    """A file, or its first `limit` bytes: how many there are, and their checksum."""
    digest, left = xxhash.xxh3_128(), limit if limit is not None else file.stat().st_size
    size = left
    with file.open("rb") as opened:
        while left and (chunk := opened.read(min(left, _CHUNK))):
            digest.update(chunk)
            left -= len(chunk)
    return StoredFile(bytes=size - left, xxh3_128=digest.hexdigest())


def _checksum_of(table: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(table, sort_keys=True).encode())
