"""Which rows a name in the configuration stands for: a file, a folder, or a dataset of the hub; or rows as given."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from tiltlm.config import DataConfig
from tiltlm.data.files import hub_datasets
from tiltlm.data.files.file_rows import data_suffix, holds_rows, known_kinds, read_rows
from tiltlm.data.files.raw_rows import Rows, as_row, without_arrays, without_nulls
from tiltlm.data.files.saved_layout import require_within
from tiltlm.errors import DataError

# Words by which a file says that it belongs to one split.
_SPLIT_WORDS = frozenset({"train", "training", "test", "testing", "valid", "validation", "val", "dev", "eval"})
# The numbers by which the files of one split are told apart.
_SHARD = re.compile(r"([-_]?(part|shard|chunk))?[-_]?\d+([-_]of[-_]\d+)?([-_][0-9a-f]{6,})?$")
# Files that describe a dataset beside its data.
_DESCRIPTIONS = frozenset({"dataset_info.json", "dataset_infos.json"})


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from.

    files: the local files that are read, by the names their rows' ids begin with.
    notes: sentences on the files, complete once the rows have been read.
    """

    rows: Rows
    files: tuple[str, ...]
    notes: list[str] = field(default_factory=list)


def open_source(spec: str, split: str, subset: str | None, hub_folder: str | None, option: str) -> Source:
    """The rows of what `spec` names: a file or folder; in `hub_folder`, if set; else a dataset of the hub.

    split: chooses within folders and hub datasets.
    subset: a sub-folder of a folder, or a configuration or folder of a hub dataset.
    option: the option that gave `spec`, for messages, such as `data.train`.

    Raises:
        DataError: nothing is found under this name, or nothing readable.
    """
    path = Path(spec).expanduser()
    if path.exists():
        return _local(path, split, subset, option)
    if path.is_symlink():
        raise DataError(f"{option}: `{spec}` is a link to `{path.readlink()}`, which is not there.")
    if "://" in spec:
        raise DataError(f"{option}: `{spec}` is an address, and only files are read: download it, and name the file.")
    # A path that is wrongly written must never be looked for at the hub.
    if data_suffix(path) is not None or not hub_datasets.is_hub_id(spec):
        raise DataError(f"{option}: there is no file or folder `{spec}`.{_did_you_mean(path)}")
    if hub_folder is not None:
        return _in_hub_folder(spec, split, subset, Path(hub_folder).expanduser(), option)
    try:
        return Source(hub_datasets.hub_rows(spec, split, subset), ())
    except DataError as error:
        raise DataError(
            f"{option}: `{spec}` is no file or folder here, so it was looked for as a dataset of the hub: {error}\n"
            f"To use a local copy: {_named(option)}, or `--hub.folder DIR` with the dataset in DIR/{spec}. "
            f"Another split: {hub_datasets.split_option(option)}.{_did_you_mean(path)}"
        ) from error


def given_source(given: Iterable[object]) -> Source:
    """Rows that stand in memory: a list of dicts, or a dataset of the library datasets. They are called `row 1` ...

    Raises:
        DataError: it is a table of another kind, such as columns by name.
    """
    if isinstance(given, Mapping):
        raise DataError(
            f"a {type(given).__name__} with the keys {', '.join(map(str, given))[:200] or 'of nothing'} is no list of "
            "rows: give a list of dicts or a datasets.Dataset; of a DatasetDict, one split."
        )
    stored = type(given).__module__.partition(".")[0] == "datasets"
    # A dataset stands in an Arrow table, in which a key that a row did not give is null.
    plain = (without_arrays(row) for row in given)
    rows = (as_row(f"row {n}", without_nulls(row) if stored else row) for n, row in enumerate(plain, start=1))
    return Source(rows, ())


def given_name(given: Iterable[object]) -> str:
    """What messages call rows in memory."""
    return "list of dicts" if isinstance(given, list | tuple) else type(given).__name__


def _in_hub_folder(spec: str, split: str, subset: str | None, folder: Path, option: str) -> Source:
    if not folder.is_dir():
        raise DataError(f"hub.folder: there is no folder `{folder}`.{_did_you_mean(folder)}")
    if not (folder / spec).exists():
        raise DataError(
            f"{option}: `{spec}` is neither a file or folder here nor in hub.folder: there is no `{folder / spec}`."
            f"{_did_you_mean(folder / spec)}"
        )
    return _local(folder / spec, split, subset, option)


def _local(path: Path, split: str, subset: str | None, option: str) -> Source:
    notes: list[str] = []
    if path.is_file():
        return Source(read_rows(path, tell=notes.append), (path.name,), notes)
    if not path.is_dir():
        raise DataError(
            f"{option}: `{path}` is neither a file nor a folder. What comes through a pipe, save to a file."
        )
    if subset and (Path(subset).is_absolute() or ".." in Path(subset).parts):
        raise DataError(f"data.subset: `{subset}` leads out of {path}: name a folder within it.")
    folder = path / subset if subset else path
    if not folder.is_dir():
        raise DataError(f"{path} has no sub-folder `{subset}` (data.subset).{_did_you_mean(folder)}")
    for saved in (folder, folder / split):
        if hub_datasets.is_saved_dataset(saved):
            require_within(saved)
            return Source(hub_datasets.saved_rows(saved, split, option), (saved.name,))
    files = split_files(folder, split, option)
    names = tuple(file.relative_to(folder).as_posix() for file in files)
    rows = chain.from_iterable(read_rows(file, name, notes.append) for file, name in zip(files, names, strict=True))
    return Source(rows, names, notes)


def split_files(folder: Path, split: str, option: str) -> list[Path]:
    """The data files below a folder that belong to a split, sorted.

    Those with the split's name as a word of their path (`train.jsonl`, `data/train-00000.parquet`); where there are
    none and `split` is a default one, those that name no split.

    option: the option that named the folder, for messages, such as `data.train`.

    Raises:
        DataError: there are no data files, none of this split, or those of several splits that are all called so.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file() and _holds_data(file, folder))
    if not files:
        raise DataError(f"{folder} holds no data files. Known kinds: {known_kinds()}.")
    words = {file: _words(file.relative_to(folder)) for file in files}
    split_words = _words(Path(split))
    own = [file for file in files if split_words <= words[file]]
    # A split that the user asked for by name must be found by name.
    by_default = split in (DataConfig.train_split, DataConfig.eval_split)
    unnamed = [file for file in files if by_default and not words[file] & _SPLIT_WORDS]
    if not own and not unnamed:
        names = ", ".join(str(file.relative_to(folder)) for file in files[:8])
        another = hub_datasets.split_option(option)
        raise DataError(f"{folder} has no files of the split `{split}`; it has: {names}. Another split: {another}.")
    return _of_one_split(own, folder, split, option) if own else unnamed


def _of_one_split(files: list[Path], folder: Path, split: str, option: str) -> list[Path]:
    """The files of the split of just this name, or of the only one whose name has it as a word."""
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(_split_name(file.relative_to(folder), split), []).append(file)
    if split.lower() in splits:
        return splits[split.lower()]
    if len(splits) > 1:
        raise DataError(
            f"{folder} has several splits that are called `{split}`: {', '.join(splits)}. Choose one, "
            f"e.g. {hub_datasets.split_option(option, hub_datasets.likely_split([*splits]))}."
        )
    return files


def _split_name(path: Path, split: str) -> str:
    """The part of a path that names the split, without numbers of shards: `train_prefs` of
    `data/train_prefs-00000-of-00002.parquet`.
    """
    parts = [part for part in path.parts if _words(Path(split)) <= _words(Path(part))]
    return _SHARD.sub("", parts[-1].lower().partition(".")[0]) if parts else split.lower()


def _holds_data(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.name not in _DESCRIPTIONS and holds_rows(path)


def _words(path: Path) -> frozenset[str]:
    return frozenset(re.split(r"[^a-z0-9]+", path.as_posix().lower()))


def _named(option: str) -> str:
    """How a file or folder is named in place of something else."""
    if option.startswith("data.source"):
        return "name a file or folder as its `path`"
    return f"`--{option} FILE` or `--{option} FOLDER`"


def _did_you_mean(path: Path) -> str:
    """The nearest name beside a missing path, as a sentence to append."""
    beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.6)
    return f" Did you mean `{path.parent / near[0]}`?" if near else ""
