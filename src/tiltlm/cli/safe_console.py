"""A console that shows hidden characters and survives a closed pipe; light to import, for commands that only print."""

from __future__ import annotations

from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from tiltlm.text.visible import visible


class SafeConsole(Console):
    """A console that shows hidden characters instead of obeying them, wherever a text came from."""

    def render_str(self, text: str, **options: Any) -> Text:
        """As in rich; every string that is printed, also in tables, comes through here."""
        return super().render_str(visible(text), **options)

    def on_broken_pipe(self) -> NoReturn:
        """Rich would end the program here, past everything that must still be saved."""
        raise BrokenPipeError


def as_it_is(text: str, style: str = "") -> Text:
    """Text of others to print: nothing in it is rich's markup, and its hidden characters are shown."""
    return Text(visible(text), style)
