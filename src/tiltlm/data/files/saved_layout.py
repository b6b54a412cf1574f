"""What a dataset saved by the library `datasets` lists as its own: files and folders within it, and no others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tiltlm.errors import DataError


def require_within(folder: Path) -> None:
    """Refuses a saved dataset whose lists lead out of its folder: the library would read whatever they name.

    A list that cannot be read is left to the library to complain of.

    Raises:
        DataError: with the file that lists, and the name.
    """
    splits = _listed(folder / "dataset_dict.json", lambda content: content["splits"])
    for part in (folder, *(folder / split for split in splits)):
        _listed(part / "state.json", lambda content: [file["filename"] for file in content["_data_files"]])


def _listed(path: Path, names_in: Callable[[Any], Iterable[Any]]) -> list[str]:
    try:
        names = [str(name) for name in names_in(json.loads(path.read_bytes()))]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    outside = next((name for name in names if name in (".", "..") or set(name) & set("/\\:\0")), None)
    if outside is not None:
        raise DataError(f"{path} lists `{outside}`, which is not within the folder, and is not read: restore the file.")
    return names
