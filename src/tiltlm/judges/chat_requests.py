"""Requests to an OpenAI-compatible address: with patience, no redirects, and a key that stays in its header."""

from __future__ import annotations

import email.utils
import http.client
import ipaddress
import json
import os
import random
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import IO
from urllib.parse import SplitResult, urlsplit

from tiltlm.errors import ConfigError, JudgeError
from tiltlm.text.masking import MASK, masked
from tiltlm.version import __version__

KEY_VARIABLE = "OPENAI_API_KEY"
"""Where the key is looked for, if no other variable is named."""
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses that may be others a little later."""
_FOR_ALL = frozenset({401, 402, 403, 404, 405})
"""Statuses that every other request would get too."""
_LONGEST_WAIT = 60.0
_LONGEST_ASKED_WAIT = 600.0
"""Seconds: of our own accord, and where the server asks for it (Retry-After)."""
_LARGEST = 8 * 2**20
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said. prompt_tokens, completion_tokens: as the server counted them; None where it did not."""

    text: str
    finished: bool
    prompt_tokens: int | None
    completion_tokens: int | None


class RequestFailedError(Exception):
    """One request had no reply that can be used; others may have."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a request is tried at most, and how long each try may take, in seconds."""

    tries: int = 6
    timeout: float = 120.0


class ChatAddress:
    """Asks for chat completions below an address such as `https://api.openai.com/v1`. Threads may share it.

    retried: how many tries were made again.
    """

    def __init__(
        self,
        address: str,
        key_variable: str | None = None,
        patience: Patience | None = None,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        """key_variable: the environment variable that holds the key; None: OPENAI_API_KEY, if it is set.
        sleep: waits for so many seconds; None: until then, or until `stop`.

        Raises:
            ConfigError: the address is none, holds secrets, or would be sent the key unencrypted though nobody said
                so; or the variable that was named is not set.
        """
        self.address = checked_address(address)
        self._key = _key(urlsplit(self.address), key_variable)
        self._stopped = threading.Event()
        self._patience, self._sleep = patience or Patience(), sleep or self._stopped.wait
        # What is for this machine goes through nobody's hands: some proxies are set for all addresses.
        direct = [urllib.request.ProxyHandler({})] if _is_here(urlsplit(self.address).hostname) else []
        self._opener = urllib.request.build_opener(_NoRedirects, *direct)
        self._lock = threading.Lock()
        self.retried = 0

    def ask(self, body: Mapping[str, object]) -> Reply:
        """The reply to one request.

        Raises:
            RequestFailedError: there is none that can be used, after as many tries as there may be.
            JudgeError: no other request would get one either.
        """
        for number in range(1, self._patience.tries + 1):
            try:
                return self._once(body)
            except _PassingError as error:
                if number == self._patience.tries:
                    raise RequestFailedError(f"{error} (tried {number} times)") from None
                wait = min(_LONGEST_WAIT, 2.0 ** (number - 1)) * random.uniform(0.75, 1.25)
                if error.wait is not None:
                    if error.wait > _LONGEST_ASKED_WAIT:
                        raise RequestFailedError(f"{error}, to be tried again in {error.wait:.0f} s") from None
                    wait = error.wait
            with self._lock:
                self.retried += 1
            self._sleep(wait)
            if self.stopped:
                raise RequestFailedError("it was stopped")
        raise AssertionError("there is at least one try")

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Ends all waiting: requests of other threads fail instead of being tried again."""
        self._stopped.set()

    def _once(self, body: Mapping[str, object]) -> Reply:
        request = urllib.request.Request(
            f"{self.address}/chat/completions",
            json.dumps(body).encode("ascii"),
            {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": f"tiltlm/{__version__}"},
            method="POST",
        )
        if self._key is not None:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        try:
            with self._opener.open(request, timeout=self._patience.timeout) as response:
                content = response.read(_LARGEST + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error) from None
        except (OSError, http.client.HTTPException) as error:  # URLError, timeouts, broken connections
            reason = getattr(error, "reason", error)
            raise _PassingError(self._clean(f"{type(error).__name__}: {reason or error}")) from None
        return self._read(content)

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        """What becomes of a status that is no success."""
        try:
            said = error.read(_LARGEST).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            said = ""
        what = self._clean(f"HTTP {error.code} {error.reason}: {_message_in(said)}".rstrip(": "))
        if 300 <= error.code < 400:
            target = self._clean(str(error.headers.get("Location", "another address")))
            return JudgeError(
                f"{self.address} leads on to {target} ({error.code}); nobody is followed there with a key. Name that "
                "address itself if you trust it."
            )
        if error.code in _FOR_ALL:
            hint = (
                "look at the key" if error.code in (401, 402, 403) else "look at the address, and at the model's name"
            )
            return JudgeError(f"{self.address} refuses the requests: {what}; {hint}.")
        if error.code in _PASSING:
            return _PassingError(what, asked_wait(error.headers.get("Retry-After"), error.headers.get("Date")))
        return RequestFailedError(what)

    def _read(self, content: bytes) -> Reply:
        if len(content) > _LARGEST:
            raise RequestFailedError(f"the reply is longer than {_LARGEST} bytes")
        try:
            table = json.loads(content)
            choice = table["choices"][0]
            text, finished = choice["message"]["content"], choice.get("finish_reason") != "length"
            usage = table.get("usage") or {}
            tokens = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            # A proxy on the way, or a server that is starting.
            shown = self._clean(content[:_SHOWN].decode("utf-8", "replace"))
            raise _PassingError(f"the reply is no chat completion: {shown!r}") from None
        if not isinstance(text, str) and not finished:
            raise RequestFailedError(
                "the reply was cut at the most tokens that it may have before it had any text: a model that thinks "
                "first needs more (--max-tokens)"
            )
        if not isinstance(text, str):
            raise RequestFailedError("the reply has no text")
        first, second = (value if isinstance(value, int) and value >= 0 else None for value in tokens)
        # A server may send back what it was sent, or half a character, which no file can hold.
        text = text if self._key is None else text.replace(self._key, MASK)
        return Reply(text.encode("utf-8", "replace").decode("utf-8"), finished, first, second)

    def _clean(self, text: str) -> str:
        """A text of the server's without the key, on one line, and no longer than can be read."""
        known = text if self._key is None else text.replace(self._key, MASK)
        return masked(" ".join(known.split()))[: 2 * _SHOWN]


class _PassingError(Exception):
    """What may be otherwise a little later. wait: seconds, where the server says so."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Nobody is followed: another host would get what was meant for this one."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


def checked_address(address: str) -> str:
    """The address without a slash at its end.

    Raises:
        ConfigError: it is no address of http or https, or holds a user, a query or a fragment.
    """
    try:
        parts = urlsplit(address)
        sound = parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        sound = False
    if not sound or any(character.isspace() or not character.isprintable() for character in address):
        raise ConfigError(f"`{masked(address)}` is no address: write https://HOST/v1 or http://HOST:PORT/v1.")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(
            f"the address `{masked(address)}` holds more than a place: leave out user, password, `?` and `#`. A key is "
            "taken from an environment variable (--key-variable)."
        )
    return address.rstrip("/").removesuffix("/chat/completions")


def _key(parts: SplitResult, variable: str | None) -> str | None:
    key = os.environ.get(variable or KEY_VARIABLE, "").strip()
    if not key:
        if variable is not None:
            raise ConfigError(f"the environment variable {variable}, which should hold the key, is not set.")
        return None
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"the environment variable {variable or KEY_VARIABLE} holds what no key can hold.")
    # Unencrypted, a key goes over the network only where somebody said so.
    return None if variable is None and parts.scheme.lower() == "http" and not _is_here(parts.hostname) else key


def _is_here(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def asked_wait(value: str | None, now: str | None) -> float | None:
    """Seconds that a Retry-After asks for, which is a number of them or a date; None where there is none.

    now: the date of the reply by the server's own clock, as this machine's may be another.
    """
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        then, replied = (email.utils.parsedate_to_datetime(date or "").timestamp() for date in (value, now))
    except (ValueError, TypeError):
        return None
    return max(0.0, then - replied)


def _message_in(said: str) -> str:
    """The message in the body of an error, as OpenAI writes it; else the body."""
    try:
        error = json.loads(said)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, LookupError, TypeError, RecursionError):
        return said
