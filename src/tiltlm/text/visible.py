"""Text of others (data, answers, file names, messages of libraries), made safe to show.

A terminal obeys control characters, and a reader believes what bidirectional and invisible characters arrange; so
they are shown as what they are: `␛` for escape, `\\x9b`, `\\u202e`. Joiners and variants that scripts and emoji need
stay where they can mean something: one behind another, or a variant of no ideograph, hides text.
"""

from __future__ import annotations

import re

_JOINERS, _VARIANTS = "\u200c\u200d", "\ufe00-\ufe0f\U000e0100-\U000e01ef"
# C0 and DEL, C1, halves of surrogate pairs; and what Unicode calls ignorable, but for joiners and variants: the soft
# hyphen, bidirectional marks, invisible separators, fillers, marks of notes and shorthand, tags.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff]"
    f"|(?<=[{_JOINERS}])[{_JOINERS}]|(?<=[{_VARIANTS}])[{_VARIANTS}]"
    "|(?<![\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])[\U000e0100-\U000e01ef]"
)
_SHOWN = 2000
"""Characters of a text that are shown where it may be of any length."""


def visible(text: str, keep: str = "\n\t") -> str:
    """The text with every hidden character but those in `keep` replaced by a name that can be seen."""
    return _HIDDEN.sub(lambda match: match[0] if match[0] in keep else _name(match[0]), text)


def visible_line(text: str) -> str:
    """The same on one line: line breaks and tabs are named too."""
    return visible(text, keep="")


def _name(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's pictures of the control characters
    if code == 0x7F:
        return "\N{SYMBOL FOR DELETE}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shortened(text: str, whole_in: str, limit: int = _SHOWN) -> str:
    """A text of more than `limit` characters as its beginning and end, with how much was left out between.

    whole_in: the file that holds the whole text.
    """
    if len(text) <= limit:
        return text
    head, tail = text[: limit // 2], text[-(limit // 2) :]
    left_out = len(text) - len(head) - len(tail)
    return f"{head}\n[... {left_out:,} characters left out; the whole is in {whole_in} ...]\n{tail}"
