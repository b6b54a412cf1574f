from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from tiltlm.config import DataConfig, HubConfig
from tiltlm.data.conversion import LoadedExamples, Role, load_examples
from tiltlm.data.files import hub_datasets
from tiltlm.data.files.raw_rows import Row
from tiltlm.data.files.sources import split_files
from tiltlm.errors import ConfigError, DataError
from tiltlm.storage.hub_access import hub_is_reachable

CLOSED_PORT = "http://127.0.0.1:9"


def pair(word: str) -> dict[str, str]:
    return {"prompt": f"{word}? ", "chosen": "yes", "rejected": "no"}


def put(path: Path, *words: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(pair(word)) + "\n" for word in words), encoding="utf-8")
    return path


def load(spec: str | Path, role: Role = "train", hub_folder: Path | None = None, **settings: Any) -> LoadedExamples:
    return load_examples(spec, DataConfig(**settings), HubConfig(str(hub_folder) if hub_folder else None), role)


def ids(loaded: LoadedExamples) -> list[str]:
    return [pair.id for pair in loaded.examples]


@pytest.fixture
def never_online(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("looked for at the hub")

    monkeypatch.setattr(hub_datasets, "hub_rows", refuse)


@pytest.mark.usefixtures("never_online")
@pytest.mark.parametrize("spec", ["pears.jsonl", "pears.csv.gz", "./pears", "a/b/pears", "/no/where", "my pears"])
def test_a_missing_file_is_not_looked_for_at_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"data\.train: there is no file or folder"):
        load(spec)


@pytest.mark.parametrize("subset", [None, "part"])
def test_a_pipe_is_neither_file_nor_folder(tmp_path: Path, subset: str | None) -> None:
    pipe = tmp_path / "pairs.jsonl"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="is neither a file nor a folder"):
        load(str(pipe), subset=subset)


def test_a_missing_file_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    near = put(tmp_path / "pairs.jsonl", "a")
    with pytest.raises(DataError) as caught:
        load(tmp_path / "pears.jsonl")
    assert f"Did you mean `{near}`?" in str(caught.value)


def test_a_folder_gives_the_files_of_the_split(tmp_path: Path) -> None:
    for name in [
        "train.jsonl",
        "b/test-00000.jsonl",
        "data/train-00001.jsonl",
        "data/train-00000.jsonl",
        "other.jsonl",
    ]:
        put(tmp_path / name, name)
    put(tmp_path / ".cache/train.jsonl", "hidden")
    (tmp_path / "dataset_infos.json").write_text("{}")
    (tmp_path / "README.md").write_text("train")
    loaded = load(tmp_path)
    assert ids(loaded) == ["data/train-00000.jsonl:1", "data/train-00001.jsonl:1", "train.jsonl:1"]
    assert loaded.source.files == ("data/train-00000.jsonl", "data/train-00001.jsonl", "train.jsonl")
    assert ids(load(tmp_path, "eval")) == ["b/test-00000.jsonl:1"]


def test_a_split_may_be_a_folder(tmp_path: Path) -> None:
    put(tmp_path / "train/part.jsonl", "a")
    put(tmp_path / "validation/part.jsonl", "b")
    assert ids(load(tmp_path)) == ["train/part.jsonl:1"]
    assert ids(load(tmp_path, "eval", eval_split="validation")) == ["validation/part.jsonl:1"]


def test_files_that_name_no_split_serve_any_default_split(tmp_path: Path) -> None:
    put(tmp_path / "trained-dogs.jsonl", "a")
    assert ids(load(tmp_path)) == ids(load(tmp_path, "eval")) == ["trained-dogs.jsonl:1"]
    with pytest.raises(DataError, match="no files of the split `special`"):
        load(tmp_path, train_split="special")


def test_the_files_of_another_split_are_never_taken_instead(tmp_path: Path) -> None:
    put(tmp_path / "train.jsonl", "a")
    with pytest.raises(DataError, match=r"no files of the split `test`; it has: train.jsonl"):
        load(tmp_path, "eval")


@pytest.mark.parametrize("role", ["train", "eval"])
@pytest.mark.parametrize(
    "names",
    [
        ["{}_prefs.jsonl", "{}_sft.jsonl", "{}_gen.jsonl"],
        [
            "data/{}_prefs-00000-of-00002.jsonl",
            "data/{}_prefs-00001-of-00002.jsonl",
            "data/{}_sft-00000-of-00001.jsonl",
        ],
        ["{}_prefs/part-0.jsonl", "{}_sft/part-0.jsonl"],
        ["harmless_{}.jsonl", "helpful_{}.jsonl"],
    ],
)
def test_several_splits_that_match_are_asked_about(tmp_path: Path, names: list[str], role: Role) -> None:
    word = "train" if role == "train" else "test"
    for name in names:
        put(tmp_path / name.format(word), name)
    with pytest.raises(DataError) as caught:
        load(tmp_path, role)
    first = names[0].format(word).removeprefix("data/").split("/")[0].split("-")[0].removesuffix(".jsonl")
    assert f"several splits that are called `{word}`: " in str(caught.value)
    assert f"`--data.{role}-split {first}`" in str(caught.value)
    settings: dict[str, Any] = {f"{role}_split": first}
    assert all(
        name.split("/")[-2 if "part" in name else -1].startswith(first)
        for name in ids(load(tmp_path, role, **settings))
    )
    # A split of just this name is the one that is meant, and so is the only one.
    put(tmp_path / f"{word}-00000-of-00001.jsonl", "exact")
    assert ids(load(tmp_path, role)) == [f"{word}-00000-of-00001.jsonl:1"]


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00002-0a1b2c3d.jsonl", "train-00001-of-00002-4e5f6a7b.jsonl"],
        ["train_prefs-0.jsonl", "train_prefs-1.jsonl"],
        ["train.part1.jsonl", "train.part2.jsonl"],
        ["train_part1.csv", "train_part2.jsonl"],
        ["train/a.jsonl", "train/b.jsonl"],
        ["one/train.jsonl", "two/train.jsonl"],
    ],
)
def test_the_files_of_one_split_belong_together(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        path = put(tmp_path / name, name)
        if name.endswith(".csv"):
            path.write_text("prompt,chosen,rejected\nq,a,b\n")
    assert load(tmp_path).source.files == tuple(names)


def test_texts_in_a_folder_are_data_where_they_hold_json(tmp_path: Path) -> None:
    put(tmp_path / "train.jsonl", "a")
    put(tmp_path / "train.txt", "b")
    (tmp_path / "train_license.txt").write_text("All rights reserved.\n")
    assert load(tmp_path).source.files == ("train.jsonl", "train.txt")


def test_a_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data files"):
        split_files(tmp_path, "train", "data.train")


def test_a_subset_is_a_sub_folder(tmp_path: Path) -> None:
    put(tmp_path / "harmless-base/train.jsonl", "a")
    put(tmp_path / "helpful-base/train.jsonl", "b")
    assert ids(load(tmp_path, subset="harmless-base")) == ["train.jsonl:1"]
    assert len(load(tmp_path).examples) == 2
    with pytest.raises(DataError, match=r"no sub-folder `harmless`.*Did you mean .*harmless-base"):
        load(tmp_path, subset="harmless")


def test_splits_and_subsets_have_no_effect_on_a_file(tmp_path: Path) -> None:
    path = put(tmp_path / "p.jsonl", "a")
    with pytest.raises(ConfigError, match=r"data\.train_split has no effect"):
        load(path, train_split="test")
    with pytest.raises(ConfigError, match=r"data\.eval_split has no effect"):
        load(path, "eval", eval_split="train")
    with pytest.raises(ConfigError, match=r"data\.subset has no effect"):
        load(path, subset="x")
    # The subset may be meant for the other source.
    assert load(path, "eval", train=str(tmp_path), eval=str(path), subset="x").examples


@pytest.mark.usefixtures("never_online")
def test_a_folder_stands_in_for_the_hub(tmp_path: Path) -> None:
    put(tmp_path / "Anthropic/hh-rlhf/harmless-base/train.jsonl", "a")
    assert ids(load("Anthropic/hh-rlhf", hub_folder=tmp_path, subset="harmless-base")) == ["train.jsonl:1"]
    with pytest.raises(DataError, match=r"nor in hub.folder.*Did you mean .*hh-rlhf"):
        load("Anthropic/hh_rlhf", hub_folder=tmp_path)
    with pytest.raises(DataError, match=r"hub.folder: there is no folder"):
        load("Anthropic/hh-rlhf", hub_folder=tmp_path / "none")


def test_saved_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    one = datasets.Dataset.from_list([pair("a"), pair("b")])
    one.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": one, "held": one}).save_to_disk(tmp_path / "both")
    assert ids(load(tmp_path / "one")) == ["one#1", "one#2"]
    assert ids(load(tmp_path / "both")) == ["both[train]#1", "both[train]#2"]
    with pytest.raises(DataError, match=r"no split `test`; there are: train, held.*`--data\.eval-split train`"):
        load(tmp_path / "both", "eval")
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(DataError, match="saved dataset cannot be read"):
        load(tmp_path / "one")
    (tmp_path / "one" / "state.json").write_text("[]")
    with pytest.raises(DataError, match="saved dataset cannot be read"):
        load(tmp_path / "one")


def test_a_saved_dataset_without_rows_is_told(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list([]).save_to_disk(tmp_path / "none")
    with pytest.raises(DataError, match="none: this saved dataset holds no rows"):
        load(tmp_path / "none")


def test_a_split_of_a_saved_dataset_that_has_none_is_an_error(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    one = datasets.Dataset.from_list([pair("a"), pair("b")], split="train_prefs")
    one.save_to_disk(tmp_path / "one")
    one.save_to_disk(tmp_path / "both" / "other")
    assert ids(load(tmp_path / "one")) == ids(load(tmp_path / "one", train_split="train_prefs")) == ["one#1", "one#2"]
    assert ids(load(tmp_path / "both", train_split="other")) == ["other#1", "other#2"]
    with pytest.raises(DataError, match=r"no `held`: remove data\.train_split"):
        load(tmp_path / "one", train_split="held")


def test_a_link_to_nothing_and_an_address_are_told(tmp_path: Path) -> None:
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(DataError, match=r"is a link to `.*gone.jsonl`, which is not there"):
        load(tmp_path / "link.jsonl")
    with pytest.raises(DataError, match="is an address, and only files are read"):
        load("https://example.org/pairs.jsonl")


# The hub


def test_without_a_connection_the_hub_fails_soon_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", CLOSED_PORT)
    started = time.monotonic()
    with pytest.raises(DataError) as caught:
        load("Anthropic/hh-rlhf", "eval", subset="harmless-base")
    assert time.monotonic() - started < 10
    for part in [
        "data.eval: `Anthropic/hh-rlhf`",
        f"the hub ({CLOSED_PORT}) cannot be reached",
        "split `test`, subset `harmless-base`",
        "--data.eval FILE",
        "--hub.folder DIR",
        "DIR/Anthropic/hh-rlhf",
    ]:
        assert part in str(caught.value)


def test_offline_mode_is_left_again(monkeypatch: pytest.MonkeyPatch) -> None:
    config = pytest.importorskip("datasets.config")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setenv("HF_ENDPOINT", CLOSED_PORT)
    before = config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    with pytest.raises(DataError):
        hub_datasets.hub_rows("owner/name", "train", None)
    after = config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    assert after == before


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A dataset in the hub library's cache, as an earlier download leaves it, and no connection."""
    datasets = pytest.importorskip("datasets")
    source = put(tmp_path / "source.jsonl", "a", "b")
    datasets.load_dataset("json", data_files={"train": str(source)}, cache_dir=str(tmp_path / "built"))
    (info,) = (tmp_path / "built").rglob("dataset_info.json")
    home = tmp_path / "cache" / "owner___name" / "small" / "0.0.0" / "0123456789abcdef"
    home.parent.mkdir(parents=True)
    described = json.loads(info.read_text()) | {"dataset_name": "name", "config_name": "small"}
    info.parent.rename(home)
    (home / "json-train.arrow").rename(home / "name-train.arrow")
    (home / "dataset_info.json").write_text(json.dumps(described))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", CLOSED_PORT)
    return "owner/name"


@pytest.mark.parametrize("subset", [None, "small"])
def test_a_cached_dataset_loads_without_a_connection(cached: str, subset: str | None) -> None:
    assert list(hub_datasets.hub_rows(cached, "train", subset)) == [
        Row("owner/name[train]#1", pair("a")),
        Row("owner/name[train]#2", pair("b")),
    ]


def test_a_split_that_is_not_there_is_told_beside_those_that_are(cached: str) -> None:
    with pytest.raises(DataError, match=r"cannot be reached.*does not hold.*split `test`.*\['train'\]"):
        hub_datasets.hub_rows(cached, "test", None)


def test_a_subset_is_tried_as_configuration_and_then_as_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    calls: list[dict[str, str]] = []

    def load_dataset(hub_id: str, **arguments: str) -> object:
        calls.append(arguments)
        if "name" in arguments:
            raise ValueError("BuilderConfig 'harmless-base' not found. Available: ['default']")
        return datasets.Dataset.from_list([pair("a")])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub_datasets, "hub_is_reachable", lambda: True)
    assert list(hub_datasets.hub_rows("o/n", "train", "harmless-base")) == [Row("o/n[train]#1", pair("a"))]
    assert calls == [{"split": "train", "name": "harmless-base"}, {"split": "train", "data_dir": "harmless-base"}]


@pytest.mark.parametrize(
    ("name", "known"),
    [("gpt2", True), ("Anthropic/hh-rlhf", True), ("a/b/c", False), ("./a", False), ("~/a", False), ("a b", False)],
)
def test_names_the_hub_could_have(name: str, known: bool) -> None:
    assert hub_datasets.is_hub_id(name) is known


def test_an_answer_of_any_kind_means_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def refuse(request: urllib.request.Request, timeout: float) -> None:
        raise urllib.error.HTTPError(request.full_url, 401, "who are you?", Message(), None)

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert hub_is_reachable()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not hub_is_reachable()


def test_silence_is_waited_for_no_longer_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def hang(*_: object, **__: object) -> None:
        time.sleep(1)
        raise OSError

    monkeypatch.setattr(urllib.request, "urlopen", hang)
    started = time.monotonic()
    assert not hub_is_reachable(timeout=0.1)
    assert time.monotonic() - started < 2
