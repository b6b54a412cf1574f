"""Ctrl-C, SIGTERM, a closed terminal: a request to stop where that is waited for, never amid a change of weights."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, what schedulers send, and what a terminal sends that is closed; Windows has no SIGHUP."""


class StopRequest:
    """Turns SIGNALS into a request to stop after the current step, where that is waited for.

    Elsewhere, and at the second signal, they interrupt at once (KeyboardInterrupt), but never within a change of the
    weights, which would be half made. A program may request it too, by `requested`; `signalled` tells whether a signal
    came.
    """

    def __init__(self) -> None:
        self.requested = False
        self.signalled = False
        self._waited_for = False
        self._held = False
        self._pending = False

    def __enter__(self) -> Self:
        self._previous: dict[int, Any] = {}
        # Handlers can be set in the main thread alone; elsewhere the program that called decides.
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                    self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """Within, the first signal only makes a request."""
        self._waited_for = True
        try:
            yield
        finally:
            self._waited_for = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, a signal waits until the end."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signalled = True
        if self._waited_for and not self.requested:
            self.requested = True
        elif self._held:
            self._pending = True
        else:
            self.requested = True
            raise KeyboardInterrupt
