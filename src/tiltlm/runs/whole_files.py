"""Files that are written whole, in the place where they are named and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file: a reader sees the earlier one or the whole new one, never half.

    A link of that name is replaced, not followed: a run's folder may come from somebody else, and its links could lead
    to any file that this user may write.

    Raises:
        OSError: it cannot be written; the earlier file is as it was.
    """
    temporary = path.with_name(f".{path.name}.partial")
    with naming(path):
        try:
            temporary.unlink(missing_ok=True)  # of a program that was killed
            with temporary.open("xb") as file:  # new, so no link
                file.write(content)
            temporary.replace(path)
        except OSError:
            if temporary.is_file():
                temporary.unlink()
            raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names the file in an error of writing it: the system names only what it could not open."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
