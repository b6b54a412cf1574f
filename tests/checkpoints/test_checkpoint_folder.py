"""One checkpoint: whole or not there, and any change of it is noticed."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltlm.checkpoints import checkpoint_folder, state_files
from tiltlm.checkpoints.checkpoint_folder import (
    RECORD,
    Circumstances,
    DamagedError,
    checkpoints_in,
    read_record,
    remove,
    set_aside,
    sweep,
    verified,
    write_checkpoint,
)
from tiltlm.checkpoints.state_files import FILES, read_state
from tiltlm.errors import RunError
from tiltlm.runs.checkpoint_record import StoredFile
from tiltlm.runs.rows import EvalRow
from tiltlm.training.state import Progress, TrainerState

METRICS = StoredFile(bytes=123, xxh3_128="0" * 32)
HELD_OUT = EvalRow(step=5, epoch=0.5, loss=0.6, accuracy=0.75, examples=4, accuracy_interval=(0.3, 0.95), seconds=1.0)


def a_state(step: int = 5) -> TrainerState:
    model = {"w": torch.arange(40.0) + step}
    return TrainerState(model, {"state": {0: {"step": torch.tensor(5.0)}}}, Progress(step, 20, 100, 2.5), {})


def written(folder: Path, step: int = 5) -> Path:
    return write_checkpoint(
        folder, a_state(step), Circumstances(METRICS, HELD_OUT, {"run.seed": "0"}, {"model": "40 weights, abc"})
    )


def test_what_it_says_of_itself(tmp_path: Path) -> None:
    path = written(tmp_path / "checkpoints")
    assert path == tmp_path / "checkpoints" / "step-00000005"
    record = verified(path)
    assert (record.step, record.metrics, record.held_out) == (5, METRICS, HELD_OUT)
    assert record.settings == {"run.seed": "0"}
    assert record.identity == {"model": "40 weights, abc"}
    assert set(record.files) == set(FILES)
    assert torch.equal(read_state(path).model["w"], a_state().model["w"])
    assert [entry.name for entry in path.parent.iterdir()] == ["step-00000005"], "nothing is left beside it"


@pytest.mark.parametrize("name", [*FILES, RECORD])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_changed_byte_is_noticed(tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject) -> None:
    path = written(tmp_path_factory.mktemp("changed"))
    content = bytearray((path / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    (path / name).write_bytes(content)
    if name == RECORD and _same_record(content, path):
        return  # another way to write the same JSON
    with pytest.raises(DamagedError, match=name):
        verified(path)
    shutil.rmtree(path)


def _same_record(content: bytearray, path: Path) -> bool:
    try:
        table = json.loads(bytes(content))
    except ValueError:
        return False
    fresh = written(path.parent / "fresh")
    return bool(table == json.loads((fresh / RECORD).read_bytes()))


@pytest.mark.parametrize("name", [*FILES, RECORD])
@pytest.mark.parametrize("left", [0, 1, 17])
def test_a_file_that_was_cut_short_is_noticed(tmp_path: Path, name: str, left: int) -> None:
    path = written(tmp_path)
    os.truncate(path / name, left)
    with pytest.raises(DamagedError, match=name):
        verified(path)


@pytest.mark.parametrize("name", [*FILES, RECORD])
def test_a_file_that_is_gone_is_noticed(tmp_path: Path, name: str) -> None:
    path = written(tmp_path)
    (path / name).unlink()
    with pytest.raises(DamagedError, match=f"{name} is missing"):
        verified(path)


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"checksum": 3}'])
def test_a_record_that_is_none_is_noticed(tmp_path: Path, content: str) -> None:
    path = written(tmp_path)
    (path / RECORD).write_text(content)
    with pytest.raises(DamagedError, match=RECORD):
        read_record(path)


def test_of_two_checkpoints_of_one_step_the_later_stays(tmp_path: Path) -> None:
    written(tmp_path)
    other = TrainerState({"w": torch.zeros(3)}, {}, Progress(5), {})
    path = write_checkpoint(tmp_path, other, Circumstances(METRICS, None, {}, {}))
    assert checkpoints_in(tmp_path) == [path]
    assert verified(path).held_out is None


def test_they_are_listed_by_step_and_nothing_else_is(tmp_path: Path) -> None:
    for step in (20, 3, 123_456_789):
        written(tmp_path, step)
    for name in (".unfinished-step-00000007", "unused-step-00000008", "step-9", "notes", ".removed-step-00000001"):
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoints_in(tmp_path)] == ["step-00000003", "step-00000020", "step-123456789"]
    sweep(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"step-00000003", "step-00000020", "step-123456789", "unused-step-00000008", "step-9", "notes"}
    sweep(tmp_path / "nowhere")
    assert checkpoints_in(tmp_path / "nowhere") == []


def test_removed_and_set_aside(tmp_path: Path) -> None:
    first, second = written(tmp_path, 1), written(tmp_path, 2)
    remove(first)
    remove(first)
    assert set_aside(second).name == "unused-step-00000002"
    assert checkpoints_in(tmp_path) == []


@pytest.mark.parametrize("failing", ["save_file", "write_text", "fsync", "replace", "mkdir"])
@pytest.mark.parametrize("call", [1, 2, 3, 4, 5])
def test_one_that_cannot_be_written_leaves_nothing_and_harms_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, call: int
) -> None:
    earlier = written(tmp_path, 4)
    calls = [0]
    owners = {"save_file": state_files, "write_text": Path, "fsync": os, "replace": Path, "mkdir": Path}
    real = getattr(owners[failing], failing)

    def fails(*arguments: object, **named: object) -> object:
        calls[0] += 1
        if calls[0] == call:
            raise OSError(28, "No space left on device")
        return real(*arguments, **named)

    monkeypatch.setattr(owners[failing], failing, fails)
    try:
        written(tmp_path, 5)
    except OSError:
        monkeypatch.undo()
        left = {path.name for path in tmp_path.iterdir()} - {"step-00000005"}
        assert left == {"step-00000004"}
    monkeypatch.undo()
    for path in checkpoints_in(tmp_path):
        verified(path)
    assert checkpoints_in(tmp_path)[0] == earlier


def test_it_has_no_name_before_all_of_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order that a power cut must find: content, names within, its own name, the list it stands in."""
    done: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def fsync(handle: int) -> None:
        done.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        real_sync(handle)

    def replace(path: Path, target: Path) -> Path:
        done.append(f"{path.name} -> {target.name}")
        return real_replace(path, target)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not tell which files are synced")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    (tmp_path / "checkpoints").mkdir()
    written(tmp_path / "checkpoints")
    aside = ".unfinished-step-00000005"
    assert set(done[:4]) == {*FILES, RECORD}
    assert done[4:] == [aside, f"{aside} -> step-00000005", "checkpoints"]


def test_tensors_are_written_by_the_library(tmp_path: Path) -> None:
    assert vars(state_files)["save_file"] is safetensors.torch.save_file
    assert xxhash.xxh3_128(b"").hexdigest() == "99aa06d3014798d86001c324468d497f", "as its authors have it"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EACCES])
def test_a_disk_that_does_not_give_it_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path, real = written(tmp_path), Path.open

    def fails(file: Path, *arguments: object, **named: object) -> object:
        if file.name == FILES[0]:
            raise OSError(number, os.strerror(number), str(file))
        return real(file, *arguments, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", fails)
    with pytest.raises(OSError, match=os.strerror(number)):
        verified(path)


def test_one_of_a_later_version_is_no_damage(tmp_path: Path) -> None:
    path = written(tmp_path)
    table = json.loads((path / RECORD).read_text()) | {"schema": 99}
    del table["checksum"]
    (path / RECORD).write_text(json.dumps({**table, "checksum": checkpoint_folder._checksum_of(table)}))
    with pytest.raises(RunError, match="a later version of tiltlm wrote it"):
        verified(path)


def test_a_part_of_a_file_has_a_checksum_of_its_own(tmp_path: Path) -> None:
    file, part = tmp_path / "a", tmp_path / "b"
    file.write_bytes(b"12345678")
    part.write_bytes(b"12345")
    assert checkpoint_folder.described(file, 5) == checkpoint_folder.described(part)
    assert checkpoint_folder.described(file, 9) == checkpoint_folder.described(file)
