"""What others may put into files that a user points at: for tests that it does nothing."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import dill
import numpy as np
import torch


class Trap:
    """Unpickling it makes a file: as it would call any function of the file's own choice."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return Path.touch, (self._mark,)


def _by_torch(trap: Trap, zipped: bool) -> bytes:
    stream = io.BytesIO()
    torch.save({"a": trap}, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def _by_numpy(trap: Trap) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([trap], dtype=object), allow_pickle=True)
    return stream.getvalue()


PICKLES: dict[str, Callable[[Trap], bytes]] = {
    "pickle": pickle.dumps,
    "dill": dill.dumps,
    "numpy": _by_numpy,
    "torch": lambda trap: _by_torch(trap, zipped=True),
    "torch, the old form": lambda trap: _by_torch(trap, zipped=False),
}
"""Bytes that spring a trap when they are unpickled, by what wrote them."""

SCRIPT = "from pathlib import Path\nPath({mark!r}).touch()\n"
"""Python code that makes a file when it is imported."""

TEXTS = {
    "a script": "<script>document.title='ran'</script>",
    "a handler": "<img src=x onerror=\"document.title='ran'\">",
    "quotes": "\" onmouseover=\"document.title='ran'\" x='",
    "a style": '<style>body{display:none}</style><p style="position:fixed;inset:0">',
    "an svg": "<svg onload=\"document.title='ran'\"><foreignObject><iframe src=javascript:alert(1)>",
    "an end of everything": "</pre></code></title></style></textarea></script>--></svg><base href=//x><meta "
    'http-equiv="refresh" content="0;url=//x"><form action=//x><link rel=stylesheet href=//x>',
    "a template": "{{ 7*7 }}{% for a in b %}${7*7}<%= 7*7 %>",
    "fences": "\n```\n````\n~~~\n</details>\n# heading\n[a](javascript:alert(1))\n![a](//x)\n",
    "the policy's place": '<meta content="POLICY">',
    "rich's markup": "[link=https://x.example]here[/link] [red]a[/red] [/] [bold :smile: \\[a] \\",
    "a terminal's title": "\x1b]0;owned\x07",
    "a terminal's link": "\x1b]8;;https://x.example\x1b\\here\x1b]8;;\x1b\\",
    "a terminal's clipboard": "\x1b]52;c;b3duZWQ=\x07",
    "a cleared screen": "\x1b[2J\x1b[H\x1b[31mred\x9b31m\x9d0;x\x9c\x90q\x9c\x07\x08\x7f\r",
    "another direction": "a\u202egnp.\u2066b\u2067c\u2068d\u2069\u200e\u200f\u061c",
    "nothing to see": "a\u200bb\u2060c\ufeffd\u00ade\u3164f\U000e0061\ufe0f\ufe0e\u200d\u200c",
    "half a pair": "\ud83d",
}
"""Texts that a page, a terminal or a reader would obey, by what they try."""
