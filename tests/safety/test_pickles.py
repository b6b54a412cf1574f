"""No pickle is loaded from a place that a user points at: a model, data, a run, the cache."""

from __future__ import annotations

import ast
import io
import json
import pickle
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import datasets
import dill
import numpy as np
import pyarrow as pa
import pytest
import torch
from hostile import PICKLES, Trap
from pyarrow import parquet
from tiny_folders import save_tiny
from tiny_runs import write_model, write_pairs

from tiltlm.cli import main
from tiltlm.config import HubConfig
from tiltlm.data.files.raw_rows import Row
from tiltlm.data.files.sources import open_source
from tiltlm.errors import DataError, ModelError
from tiltlm.model.finding import find_model
from tiltlm.model.loading import load_tokenizer, model_facts
from tiltlm.model.weights import load_model
from tiltlm.runs.run_files import read_run

SOURCES = sorted((Path(__file__).parents[2] / "src").rglob("*.py"))
BESIDE_A_MODEL = (
    *("pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "adapter_model.bin", "optimizer.pt", "scheduler.pt"),
    *("rng_state.pth", "training_args.bin", "consolidated.00.pth", "model.ckpt", "model.pkl", "tokenizer.pkl"),
    *("vocab.pkl", "special_tokens.pkl", "tokenizer.model.pickle", "arrays.npy"),
)
BESIDE_DATA = (
    "data.pkl",
    "train.pickle",
    "train.pt",
    "train.npy",
    "train.bin",
    "state.pkl",
    "train.joblib",
    "cache.arrow.pkl",
)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "sprung"


def plant(folder: Path, names: tuple[str, ...], mark: Path) -> None:
    """Every name with a pickle, those of all kinds in turn."""
    for place, name in enumerate(names):
        write = list(PICKLES.values())[place % len(PICKLES)]
        (folder / name).write_bytes(write(Trap(mark)))


UNSAFE: dict[str, Callable[[bytes], object]] = {
    "pickle": pickle.loads,
    "dill": dill.loads,
    "numpy": lambda content: np.load(io.BytesIO(content), allow_pickle=True),
    "torch": lambda content: torch.load(io.BytesIO(content), weights_only=False),
    "torch, the old form": lambda content: torch.load(io.BytesIO(content), weights_only=False),
}


@pytest.mark.parametrize("kind", PICKLES)
def test_the_traps_would_spring(kind: str, mark: Path) -> None:
    UNSAFE[kind](PICKLES[kind](Trap(mark)))
    assert mark.exists()


# Models


def test_pickles_beside_a_models_weights_are_not_opened(tmp_path: Path, mark: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    plant(folder, BESIDE_A_MODEL, mark)
    source = find_model(str(folder), HubConfig())
    model_facts(source, load_tokenizer(source))
    load_model(source, torch.device("cpu"))
    assert not mark.exists()


@pytest.mark.parametrize("kind", PICKLES)
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_pickles_in_place_of_a_models_weights_are_refused(kind: str, name: str, tmp_path: Path, mark: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(PICKLES[kind](Trap(mark)))
    source = find_model(str(folder), HubConfig())
    model_facts(source, load_tokenizer(source))
    with pytest.raises(ModelError, match="pickle" if name.endswith(".bin") else "damaged"):
        load_model(source, torch.device("cpu"))
    assert not mark.exists()


# Data


@pytest.mark.parametrize("name", BESIDE_DATA)
def test_pickled_data_is_refused(name: str, tmp_path: Path, mark: Path) -> None:
    plant(tmp_path, (name,), mark)
    with pytest.raises(DataError, match="files of this kind are not read"):
        list(open_source(str(tmp_path / name), "train", None, None, "data.train").rows)
    assert not mark.exists()


@pytest.mark.parametrize("kind", PICKLES)
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "txt", "parquet", "arrow", "feather", "jsonl.gz"])
def test_pickles_under_names_of_data_give_no_row(kind: str, suffix: str, tmp_path: Path, mark: Path) -> None:
    path = tmp_path / f"pairs.{suffix}"
    path.write_bytes(PICKLES[kind](Trap(mark)))
    try:
        rows = list(open_source(str(path), "train", None, None, "data.train").rows)
    except DataError:
        rows = []
    assert not [row for row in rows if isinstance(row, Row) and "a" in row.fields]
    assert not mark.exists()


def test_pickles_beside_data_are_passed_over(tmp_path: Path, mark: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write_pairs(folder / "train.jsonl", 3)
    plant(folder, BESIDE_DATA, mark)
    assert len(list(open_source(str(folder), "train", None, None, "data.train").rows)) == 3
    assert not mark.exists()


@pytest.mark.parametrize("kind", PICKLES)
def test_pickles_in_a_saved_dataset_are_not_loaded(kind: str, tmp_path: Path, mark: Path) -> None:
    folder = tmp_path / "set"
    datasets.Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]).save_to_disk(str(folder))
    plant(folder, BESIDE_DATA, mark)
    assert len(list(open_source(str(folder), "train", None, None, "data.train").rows)) == 1
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        path.write_bytes(PICKLES[kind](Trap(mark)))
        with suppress(DataError):
            list(open_source(str(folder), "train", None, None, "data.train").rows)
        path.write_bytes(whole)
    assert not mark.exists()


@pytest.mark.parametrize("suffix", ["arrow", "feather", "parquet"])
def test_arrows_pickled_types_are_not_made(suffix: str, tmp_path: Path, mark: Path) -> None:
    """A column whose type was a pickled Python object: CVE-2023-47248 of pyarrow."""
    metadata = {
        "ARROW:extension:name": b"arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(Trap(mark)),
    }
    schema = pa.schema([pa.field("prompt", pa.string(), metadata=metadata), pa.field("chosen", pa.string())])
    table = pa.table([pa.array(["a"]), pa.array(["b"])], schema=schema)
    path = tmp_path / f"pairs.{suffix}"
    if suffix == "parquet":
        parquet.write_table(table, path)
    else:
        with pa.ipc.new_file(str(path), schema) as writer:
            writer.write_table(table)
    (row,) = open_source(str(path), "train", None, None, "data.train").rows
    assert isinstance(row, Row) and row.fields == {"prompt": "a", "chosen": "b"}
    assert not mark.exists()


# Runs and the cache

TRAIN = [
    *("train", "--model.path", "tiny", "--data.train", "pairs.jsonl", "--run.overwrite", "--training.max-steps", "1"),
    *("--comparison.max-new-tokens", "2", "--comparison.prompts", "1", "--comparison.samples", "0"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, its model and data, and the cache that it filled."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TILTLM_CACHE", str(folder / "cache"))
        write_model(Path("tiny"))
        write_pairs(Path("pairs.jsonl"))
        assert main(TRAIN) == 0
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(trained, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "work" / "cache"))
    return tmp_path / "work"


def test_pickles_in_place_of_what_the_cache_holds_are_not_loaded(
    here: Path, mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(path for path in (here / "cache").rglob("*") if path.is_file())
    assert {path.suffix for path in files} >= {".sqlite", ".arrow", ".json"}
    for place, path in enumerate(files):
        plant(path.parent, BESIDE_DATA, mark)
        path.write_bytes(list(PICKLES.values())[place % len(PICKLES)](Trap(mark)))
    code = main(TRAIN)
    assert code == 0 or "tiltlm cache --clear" in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize("kind", PICKLES)
def test_pickles_in_place_of_a_runs_files_are_not_loaded(
    kind: str, here: Path, mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = here / "runs" / "run"
    plant(run, (*BESIDE_A_MODEL, *BESIDE_DATA), mark)
    plant(run / "model", BESIDE_A_MODEL, mark)
    read_run(run)
    for path in sorted(path for path in run.iterdir() if path.suffix in (".json", ".jsonl")):
        whole = path.read_bytes()
        path.write_bytes(PICKLES[kind](Trap(mark)))
        main(["report", str(run)])
        main(["compare", str(run)])
        path.write_bytes(whole)
    (run / "model" / "model.safetensors").write_bytes(PICKLES[kind](Trap(mark)))
    assert main(["compare", str(run), "--prompt", "Is 1 a number?"]) == 1
    assert "cannot be loaded" in capsys.readouterr().err
    assert not mark.exists()


# The program


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_that_unpickles_is_called(path: Path) -> None:
    """Neither pickle nor its kin is imported; torch.load knows weights alone; numpy's reader takes no objects."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name.partition(".")[0] for alias in node.names} | {getattr(node, "module", None) or ""}
            assert not names & {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "pandas"}
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if called == "torch.load":
                assert given.get("weights_only") == "True"
            assert given.get("allow_pickle", "False") == "False"
            assert given.get("use_safetensors", "True") == "True"


def test_every_weight_that_is_read_is_asked_for_as_safetensors() -> None:
    """But for the embedded model, whose file is known by its hash. `kind` is the class that weights.py is given."""
    loads = [
        (path.name, "use_safetensors=True" in ast.unparse(node))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and re.fullmatch(r"(AutoModel\w*|kind)\.from_pretrained", ast.unparse(node.func))
    ]
    assert sorted(loads) == [("embedded.py", False), ("trl_peer.py", True), ("weights.py", True)]


def test_an_index_of_weights_leads_nowhere_else(tmp_path: Path) -> None:
    """Names that are paths would read any file of the machine into the model that is saved."""
    secret = save_tiny(tmp_path / "secret") / "model.safetensors"
    folder = save_tiny(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    for place in (str(secret), "../secret/model.safetensors", "..\\secret\\model.safetensors", "model.bin", 3):
        index = {"metadata": {}, "weight_map": {"lm_head.weight": place}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ModelError, match="names files that are not beside it"):
            load_model(find_model(str(folder), HubConfig()), torch.device("cpu"))
