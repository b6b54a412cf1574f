"""The documentation site: README, these pages, and the public API from its docstrings. `make docs` builds it.

Sphinx and not MkDocs: it is maintained, it fails on a link or a reference that leads nowhere (`-W`), it reads Markdown
where it lies (myst-parser), so that a page has the same links here and in the repository, and autodoc imports what it
documents. The repository is the source folder; pages are named one by one in `index.md`.
"""

from __future__ import annotations

import itertools
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

import tiltlm  # noqa: E402

project = "tiltlm"
author = "the authors of tiltlm"
release = version = tiltlm.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "README.ru.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/*.md",
    "src/tiltlm/demo/CARD.md",
]
exclude_patterns = [".*", "build", "runs"]
html_theme = "furo"
html_title = "tiltlm"
html_extra_path = ["site"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"


def _is_api(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Leaves out of the API's page whatever `tiltlm` holds besides its `__all__`."""
    if what != "module":
        return None
    return True if name not in getattr(tiltlm, "__all__", ()) else None


_NAMED = re.compile(r"(\w+(?:, \w+)*): (?=\S)")
_SECTION = re.compile(r"([A-Z][a-z]+):")
_LITERAL = re.compile(r"`+[^`]+`+")


def _as_restructured_text(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text: names before a colon become a list, marks that mean nothing to us mean nothing."""
    summary, rest = (lines[:1], lines[1:]) if what == "module" else ([], lines[:])
    lines[:] = [*map(_marked, summary), *_converted(rest)]


def _converted(lines: list[str]) -> Iterator[str]:
    item, line, waiting = False, "", list(lines)
    while waiting:
        before, line = line, waiting.pop(0)
        named, section = _NAMED.match(line), _SECTION.fullmatch(line)
        if section is not None:
            block = _indented(waiting)
            yield from ("", f"**{section[1]}**", "", *_converted(textwrap.dedent("\n".join(block)).splitlines()), "")
        elif line.startswith("    ") and not before and not item:  # an equation, or lines of a program
            yield from ("::", "", line, *_indented(waiting), "")
        elif named is not None:
            yield from ([] if item else [""])
            item = True
            yield f"* **{_escaped(named[1])}**: {_marked(line[named.end() :])}"
        elif item and line.startswith("    "):
            yield f"  {_marked(line.strip())}"
        elif item and line:
            item = False
            yield from ("", _marked(line))
        else:
            item = item and bool(line)
            if line and before and _indent(line) != _indent(before):
                yield ""
            yield _marked(line)


def _indented(waiting: list[str]) -> list[str]:
    """Takes the lines off that are indented, up to the first that is not."""
    block = list(itertools.takewhile(lambda below: not below or below[0].isspace(), waiting))
    del waiting[: len(block)]
    return block


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _marked(text: str) -> str:
    """`name` as code, and everything else as it stands."""
    parts, end = [], 0
    for literal in _LITERAL.finditer(text):
        parts += [_escaped(text[end : literal.start()]), f"``{literal[0].strip('`')}``"]
        end = literal.end()
    return "".join([*parts, _escaped(text[end:])])


def _escaped(text: str) -> str:
    return re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", text)


class Folders(SphinxPostTransform):
    """Links to folders of the repository lead somewhere, but to no page: their text stays. All others must resolve."""

    default_priority = 5  # before myst-parser's own

    def run(self, **options: object) -> None:
        for link in list(self.document.findall(addnodes.pending_xref)):
            page = ROOT / str(link.get("refdoc", ""))
            if link.get("reftype") == "myst" and (page.parent / str(link["reftarget"])).is_dir():
                link.replace_self(list(link.children))


def setup(app: Sphinx) -> None:
    """Connects the above."""
    app.connect("autodoc-skip-member", _is_api)
    app.connect("autodoc-process-docstring", _as_restructured_text, priority=100)
    app.add_post_transform(Folders)
