"""Whether the Hugging Face hub answers, asked once and briefly: its own client retries for half a minute."""

from __future__ import annotations

import os
import ssl
import threading
import urllib.error
import urllib.request

_TRUE = {"1", "ON", "YES", "TRUE"}


def hub_endpoint() -> str:
    """The address of the hub: `HF_ENDPOINT`, or https://huggingface.co."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def hub_is_reachable(timeout: float = 3.0) -> bool:
    """True if the hub answers within about `timeout` seconds, whatever its answer.

    Proxies of the environment are used. False without asking when `HF_HUB_OFFLINE` is set.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE:
        return False
    answered = threading.Event()
    # A name lookup obeys no timeout of ours, so the question is put in a thread that may be left behind.
    asking = threading.Thread(target=_ask, args=(hub_endpoint(), timeout, answered), daemon=True)
    asking.start()
    asking.join(timeout)
    return answered.is_set()


def _ask(endpoint: str, timeout: float, answered: threading.Event) -> None:
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=timeout).close()
    except urllib.error.HTTPError:
        pass  # an answer all the same
    except (OSError, ValueError) as error:
        # A certificate that Python's own store cannot check is an answer too: the hub's client brings its own store.
        if not isinstance(getattr(error, "reason", None), ssl.SSLError):
            return
    answered.set()
