"""Datasets of the Hugging Face hub, and datasets saved in its library's own layout."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from tiltlm.config import DataConfig
from tiltlm.data.files.arrow_rows import as_row, require_sound
from tiltlm.data.files.raw_rows import UNREADABLE, Rows
from tiltlm.errors import DataError
from tiltlm.runs.data_account import DroppedRow
from tiltlm.storage.hub_access import hub_endpoint, hub_is_reachable

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_ROWS_AT_ONCE = 1000


def is_hub_id(name: str) -> bool:
    """Whether the hub could have a dataset or model of this name: `name` or `owner/name`."""
    return _HUB_ID.fullmatch(name) is not None


def hub_rows(hub_id: str, split: str, subset: str | None) -> Rows:
    """The rows of a hub dataset's split; `subset` is one of its configurations or folders.

    Without a connection a dataset that was loaded before is read from the cache.

    Raises:
        DataError: there is no such dataset, split or subset, or the hub cannot be reached, which is found out in
            seconds.
    """
    attempts: list[dict[str, str]] = [{"name": subset}, {"data_dir": subset}] if subset else [{}]
    errors = []
    reachable = hub_is_reachable()
    with nullcontext() if reachable else _offline():
        for attempt in attempts:
            dataset = _load(hub_id, split, attempt)
            if not isinstance(dataset, Exception):
                return _dataset_rows(dataset, f"{hub_id}[{split}]")
            errors.append(dataset)
    wanted = f"`{hub_id}`, split `{split}`" + (f", subset `{subset}`" if subset else "")
    problem = "does not give" if reachable else "cannot be reached, and its cache on this machine does not hold"
    # Offline, that there is no connection is not worth saying twice.
    reasons = [str(error).strip() for error in errors if reachable or not isinstance(error, ConnectionError)]
    raise DataError(f"the hub ({hub_endpoint()}) {problem} {wanted}. {' '.join(reasons)}".rstrip())


def is_saved_dataset(folder: Path) -> bool:
    """Whether the folder was written by `save_to_disk` of the library `datasets`."""
    single = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return single or (folder / "dataset_dict.json").is_file()


def saved_rows(folder: Path, split: str, option: str) -> Rows:
    """The rows of a dataset written by `save_to_disk`; `split` chooses where it has several, and is no other than its
    own where it is one.

    option: the option that named the folder, for messages, such as `data.train`.

    Raises:
        DataError: it cannot be read, or has no such split.
    """
    from datasets import DatasetDict, load_from_disk

    try:
        dataset = load_from_disk(str(folder))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{folder}: this saved dataset cannot be read: {error}") from error
    except LookupError as error:
        raise DataError(f"{folder}: this saved dataset holds no rows, or its files are not whole.") from error
    if not isinstance(dataset, DatasetDict):
        by_default = split in (DataConfig.train_split, DataConfig.eval_split)
        if not by_default and split not in (folder.name, str(dataset.split)):
            own = "its `split`" if option.startswith("data.source") else f"{option}_split"
            raise DataError(f"{folder} is one dataset without splits, so there is no `{split}`: remove {own}.")
        return _dataset_rows(dataset, folder.name)
    if split not in dataset:
        raise DataError(
            f"{folder} has no split `{split}`; there are: {', '.join(dataset)}. Choose one, e.g. "
            f"{split_option(option, likely_split([*dataset]))}."
        )
    return _dataset_rows(dataset[split], f"{folder.name}[{split}]")


def split_option(option: str, name: str = "NAME") -> str:
    """How another split is chosen, in words: by a flag, or in the table of one of several sources."""
    if option.startswith("data.source"):
        return f'`split = "{name}"` in the table [[data.source]]'
    return f"`--{option}-split {name}`"


def likely_split(names: Sequence[str]) -> str:
    """Of several splits the one that seems to hold preferences, for a message."""
    return next((name for name in names if "pref" in name), next(iter(names), "NAME"))


def _load(hub_id: str, split: str, arguments: dict[str, str]) -> Any:
    """The dataset, or the error that says why there is none."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        return load_dataset(hub_id, split=split, **arguments)
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        return error


def _dataset_rows(dataset: Any, name: str) -> Rows:
    from pyarrow import ArrowException

    tables, number = dataset.with_format("arrow"), 0
    try:
        for start in range(0, len(dataset), _ROWS_AT_ONCE):
            require_sound(tables[start : start + _ROWS_AT_ONCE])
            portion = dataset.select(range(start, min(start + _ROWS_AT_ONCE, len(dataset))))
            for at in range(len(portion)):
                number += 1
                yield as_row(f"{name}#{number}", partial(portion.__getitem__, at))
    except (ArrowException, OSError) as error:
        detail = f"damaged dataset, nothing is read from here on: {error}"
        yield DroppedRow(f"{name}#{number + 1}", UNREADABLE, detail)


@contextmanager
def _offline() -> Iterator[None]:
    """The hub's libraries in offline mode: they look in their cache, and do not retry for half a minute."""
    import datasets.config
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
