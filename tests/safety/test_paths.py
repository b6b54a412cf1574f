"""Names in data, models, runs and settings lead nowhere but where they belong."""

from __future__ import annotations

import gzip
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import datasets
import example_run
import pytest
from tiny_runs import write_model, write_pairs

from tiltlm.cli import main
from tiltlm.config import config_from_dict
from tiltlm.data.files.hub_datasets import is_hub_id
from tiltlm.data.files.raw_rows import Row
from tiltlm.data.files.sources import open_source
from tiltlm.errors import ConfigError, DataError
from tiltlm.report.page import write_report

OUTWARDS = ["..", ".", "../x", "../../x", "a/../../x", "/tmp/x", "a/b", "..\\x", "a\\b", "", "\0", "~/x/y", "x\x1b"]
SECRET = "not yours"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that nothing may change."""
    path = tmp_path / "secret.txt"
    path.write_text(SECRET)
    return path


@pytest.fixture
def here(tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model and data, and its cache beside it."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    write_model(Path("tiny"))
    write_pairs(Path("pairs.jsonl"))
    return folder


def train(*words: str) -> int:
    small = ["--training.max-steps", "1", "--comparison.prompts", "1", "--comparison.max-new-tokens", "2"]
    return main(["train", "--model.path", "tiny", *small, *words])


@pytest.mark.parametrize("name", OUTWARDS)
def test_a_run_has_a_name_that_is_a_folder_of_runs(name: str) -> None:
    with pytest.raises(ConfigError, match=r"run\.name"):
        config_from_dict({"run": {"name": name}})


@pytest.mark.parametrize("name", OUTWARDS)
def test_what_is_looked_for_at_the_hub_is_no_path(name: str) -> None:
    assert not is_hub_id(name) or name == "a/b"


@pytest.mark.parametrize("subset", ["..", "../other", "x/../../other", "/etc"])
def test_a_subset_lies_within_its_folder(subset: str, tmp_path: Path) -> None:
    for name in ("set", "other"):
        (tmp_path / name).mkdir()
        write_pairs(tmp_path / name / "train.jsonl", 1)
    with pytest.raises(DataError, match="leads out of"):
        open_source(str(tmp_path / "set"), "train", subset, None, "data.train")


def saved(folder: Path, text: str) -> Path:
    datasets.Dataset.from_list([{"prompt": text, "chosen": "b", "rejected": "c"}]).save_to_disk(str(folder))
    return folder


@pytest.mark.parametrize("place", ["../other/data-00000-of-00001.arrow", "{other}/data-00000-of-00001.arrow"])
def test_a_saved_dataset_reads_its_own_files_alone(place: str, tmp_path: Path) -> None:
    other, folder = saved(tmp_path / "other", SECRET), saved(tmp_path / "set", "mine")
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"] = [{"filename": place.format(other=other)}]
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match="not within the folder"):
        list(open_source(str(folder), "train", None, None, "data.train").rows)


def test_a_saved_dataset_has_its_own_splits_alone(tmp_path: Path) -> None:
    saved(tmp_path / "other", SECRET)
    folder = tmp_path / "set"
    datasets.DatasetDict({"train": datasets.Dataset.from_list([{"prompt": "a"}])}).save_to_disk(str(folder))
    assert len(list(open_source(str(folder), "train", None, None, "data.train").rows)) == 1
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "../other"]}))
    with pytest.raises(DataError, match="not within the folder"):
        list(open_source(str(folder), "train", None, None, "data.train").rows)


# What is written


def test_names_in_data_write_nothing_outside_the_run(here: Path, tmp_path: Path) -> None:
    """Ids, splits, columns and roles that are paths, in a file whose name leads upwards where it can."""
    rows = [
        {"id": f"../../{n}", "split": "/tmp/x", "prompt": f"../{n}", "chosen": "/etc/passwd", "rejected": "..\\..\\x"}
        for n in range(8)
    ]
    name = "..%2f..%2fpairs.jsonl"
    Path(name).write_text("\n".join(json.dumps(row | {"../../column": "../../x"}) for row in rows))
    before = {path for path in tmp_path.rglob("*") if not path.is_dir()}
    assert train("--data.train", name, "--run.name", "one") == 0
    new = {path for path in tmp_path.rglob("*") if not path.is_dir()} - before
    assert new
    assert not [path for path in new if not {here / "runs" / "one", tmp_path / "cache"} & set(path.parents)]


@pytest.mark.parametrize("ending", ["", ".partial"])
def test_a_report_is_not_written_through_links(ending: str, secret: Path, tmp_path: Path) -> None:
    """Of a run's folder that somebody else has made: links in it lead to files of the user's own."""
    run = example_run.write_run(tmp_path / "demo")
    (run / "summary.json").unlink()
    names = ["training_metrics.png", "comparison.md", "report.html", "summary.json"]
    for name in names if ending else names[:3]:
        (run / (f".{name}.partial" if ending else name)).symlink_to(secret)
    write_report(run)
    assert secret.read_text() == SECRET
    assert all((run / name).is_file() and not (run / name).is_symlink() for name in names)


def test_a_run_is_not_made_through_a_link(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "elsewhere").mkdir()
    Path("runs").mkdir()
    Path("runs/one").symlink_to(tmp_path / "elsewhere")
    for more in ([], ["--run.overwrite"]):
        assert train("--data.train", "pairs.jsonl", "--run.name", "one", *more) == 1
        assert "symbolic link" in capsys.readouterr().err
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_run_is_not_gone_on_with_through_links(here: Path, secret: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--data.train", "pairs.jsonl", "--run.name", "one") == 0
    for name in ("metrics.jsonl", ".lock", "checkpoints", "model"):
        path = here / "runs" / "one" / name
        there = path.exists()
        if there:
            path.rename(here / "aside")
        path.symlink_to(secret)
        assert main(["train", "--resume", "runs/one"]) == 1
        assert f"{name} is a link to {secret}" in capsys.readouterr().err
        assert secret.read_text() == SECRET
        path.unlink()
        if there:
            (here / "aside").rename(path)
    assert main(["train", "--resume", "runs/one"]) == 0


def test_links_in_the_cache_are_not_written_through(here: Path, secret: Path, tmp_path: Path) -> None:
    """What they lead to is left as it is, also when the cache is cleared."""
    assert train("--data.train", "pairs.jsonl", "--run.name", "one") == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "account.json").write_text(SECRET)
    tokens = tmp_path / "cache" / "tokens"
    for entry in list(tokens.iterdir()):
        entry.rename(tmp_path / f"moved-{entry.name}")
        entry.symlink_to(elsewhere)
    assert train("--data.train", "pairs.jsonl", "--run.name", "two") == 0
    assert main(["cache", "--clear", "all"]) == 0
    assert [path.name for path in elsewhere.iterdir()] == ["account.json"]
    assert (elsewhere / "account.json").read_text() == SECRET
    assert secret.read_text() == SECRET


# Archives


def _zip(path: Path, content: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../pairs.jsonl", content)


def _tar(path: Path, content: bytes) -> None:
    inner = path.with_name("inner")
    inner.write_bytes(content)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(inner, "../../pairs.jsonl")
    inner.unlink()


@pytest.mark.parametrize(("name", "write"), [("pairs.zip", _zip), ("pairs.tar.gz", _tar), ("pairs.tgz", _tar)])
def test_archives_are_not_unpacked(name: str, write: Callable[[Path, bytes], None], tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / name
    path.parent.mkdir(parents=True)
    write(path, b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    with pytest.raises(DataError, match="files of this kind are not read"):
        list(open_source(str(path), "train", None, None, "data.train").rows)
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == [path]


def test_the_name_within_a_gzip_file_is_nobodys_business(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl.gz"
    with path.open("wb") as stream, gzip.GzipFile("../../x.jsonl", "wb", fileobj=stream) as packed:
        packed.write(b'{"prompt": "a"}\n')
    (row,) = open_source(str(path), "train", None, None, "data.train").rows
    assert isinstance(row, Row) and row.id == "pairs.jsonl.gz:1"
    assert list(tmp_path.iterdir()) == [path]
