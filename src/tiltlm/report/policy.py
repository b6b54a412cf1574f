"""What a browser may do with the page: show it in its own styles, and nothing else."""

from __future__ import annotations

import base64
import hashlib
from html.parser import HTMLParser

PLACE = 'content="POLICY"'
"""Where the policy stands in a page that has none yet: in its head, before any text of others."""


def with_policy(page: str) -> str:
    """The page with its content-security policy, which knows its styles by their hashes.

    Nothing is loaded, no script runs, no form is sent and no address is resolved against another, whatever the texts
    in the page are; styles of such texts would not be applied either. Source: CSP Level 3, `style-src` with
    'unsafe-hashes', which lets hashes stand for `style` attributes too.
    """
    hashes = " ".join(f"'sha256-{_digest(style)}'" for style in _styles(page))
    policy = f"default-src 'none'; style-src 'unsafe-hashes' {hashes}; base-uri 'none'; form-action 'none'"
    return page.replace(PLACE, f'content="{policy}"', 1)


def _digest(style: str) -> str:
    return base64.b64encode(hashlib.sha256(style.encode("utf-8", "replace")).digest()).decode("ascii")


def _styles(page: str) -> list[str]:
    """The different styles of a page in order: those of its `style` elements and attributes."""
    reader = _StyleReader()
    reader.feed(page)
    reader.close()
    return list(dict.fromkeys(reader.styles))


class _StyleReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.styles: list[str] = []
        self._within = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.styles += [value for name, value in attrs if name == "style" and value is not None]
        self._within = tag == "style"
        if self._within:
            self.styles.append("")

    def handle_endtag(self, tag: str) -> None:
        self._within = False

    def handle_data(self, data: str) -> None:
        if self._within:
            self.styles[-1] += data
