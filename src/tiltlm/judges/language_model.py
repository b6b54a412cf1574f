"""A judge that is a language model behind an OpenAI-compatible address: it compares two answers, in both orders.

Source: L. Zheng et al., Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena, arXiv 2306.05685, sections 3.3 and 3.4:
models favour what stands first, so both orders are asked, and a win is one in both.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from tiltlm.config.judge_words import JudgeWord
from tiltlm.errors import ConfigError, JudgeError
from tiltlm.judges.chat_requests import ChatAddress, Reply, RequestFailedError
from tiltlm.judges.judge_interface import Advance, Asked, BothOrders
from tiltlm.judges.reply_cache import ReplyCache
from tiltlm.judges.verdict_prompt import CRITERION, TEMPLATE, messages, wins_of_first


@dataclass(frozen=True, slots=True)
class Asking:
    """How a language model is asked.

    model: its name at the address. at_once: requests at one time. max_tokens: of a reply.
    tokens_option: what the server calls that limit. criterion: what the better answer is, in words.
    """

    model: str
    temperature: float = 0.0
    max_tokens: int = 16
    tokens_option: str = "max_tokens"
    at_once: int = 4
    criterion: str = CRITERION


@dataclass(slots=True)
class Account:
    """What judging took and what went wrong.

    asked: requests with a reply. cached: replies that were kept from before. retried: tries that were made again.
    failed: requests without a reply. not_understood: replies that say neither A nor B nor a tie, or were cut.
    prompt_tokens, completion_tokens: of the requests asked now, as the server counted them. uncounted: replies to
        these of which it did not say.
    """

    asked: int = 0
    cached: int = 0
    retried: int = 0
    failed: int = 0
    not_understood: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0


@dataclass(frozen=True, slots=True)
class Prices:
    """Of a million tokens, in a currency of the user's."""

    prompt: float
    completion: float

    def cost(self, account: Account) -> float:
        """Of what was asked."""
        return (account.prompt_tokens * self.prompt + account.completion_tokens * self.completion) / 1e6


class LanguageModel:
    """`https://HOST/v1`: which answer is better, by what the model says of both orders."""

    def __init__(
        self,
        word: JudgeWord,
        asking: Asking,
        address: ChatAddress,
        prices: Prices | None = None,
        cache_folder: Path | None = None,
    ) -> None:
        """
        Raises:
            ConfigError: the cache cannot be used, or a setting is out of range.
        """
        if not asking.criterion.strip() or not asking.model.strip():
            raise ConfigError("the judge's model and its criterion should not be empty.")
        for name, value, least in (("max_tokens", asking.max_tokens, 1), ("at_once", asking.at_once, 1)):
            if value < least:
                raise ConfigError(f"{name} of the judge must be at least {least}, not {value}.")
        if not 0 <= asking.temperature <= 2:
            raise ConfigError(f"the judge's temperature must be from 0 to 2, not {asking.temperature:g}.")
        self.name = word.word
        self.account = Account()
        self._asking, self._address, self._prices = asking, address, prices
        self._cache = ReplyCache(address.address, asking.model, cache_folder)

    def facts(self) -> dict[str, object]:
        """Address, model, temperature, and a digest of what stands around the texts; never the key."""
        settings = asdict(self._asking)
        del settings["at_once"]  # it decides nothing
        digest = hashlib.sha256(TEMPLATE.encode()).hexdigest()[:16]
        return {"address": self._address.address, **settings, "template": digest}

    def both_orders(
        self, pairs: Sequence[tuple[Asked, Asked]], advance: Advance = lambda done: None
    ) -> list[BothOrders]:
        """What the model says of each pair in both orders. Two answers that are the same are a tie unasked.

        Raises:
            JudgeError: the address refuses whatever it is asked.
        """
        bodies = [
            [] if first.answer == second.answer else [self._body(first, second), self._body(second, first)]
            for first, second in pairs
        ]
        keyed = {self._cache.key(body): body for own in bodies for body in own}
        waiting: dict[bytes, list[int]] = {}
        for number, own in enumerate(bodies):
            for body in own:
                waiting.setdefault(self._cache.key(body), []).append(number)
        left = [len(own) for own in bodies]
        advance(sum(not count for count in left))
        found: dict[bytes, float | str] = {}
        for key, verdict in self._verdicts(keyed):
            found[key] = verdict
            for number in waiting[key]:
                left[number] -= 1
                advance(left[number] == 0)
        self.account.retried = self._address.retried
        return [_of_replies([found[self._cache.key(body)] for body in own]) for own in bodies]

    def compare(self, pairs: Sequence[tuple[Asked, Asked]], advance: Advance = lambda done: None) -> list[float | None]:
        """Wins of the first answer of each pair: 1 or 0 where both orders say so, else 0.5; None where one failed."""
        return [orders.verdict for orders in self.both_orders(pairs, advance)]

    def remarks(self) -> list[str]:
        """Requests, tokens, cost and failures, in sentences."""
        one = self.account
        said = [
            f"{one.asked} requests were made, {one.cached} replies were kept from before, {one.retried} tries again."
        ]
        if one.asked:
            uncounted = f" ({one.uncounted} replies did not say)" if one.uncounted else ""
            said.append(f"{one.prompt_tokens} tokens were read and {one.completion_tokens} written{uncounted}.")
        if self._prices is not None:
            said.append(f"That cost {self._prices.cost(one):.4f} by the prices given.")
        if one.failed or one.not_understood:
            said.append(f"{one.failed} requests failed, {one.not_understood} replies were not understood.")
        return said

    def _body(self, first: Asked, second: Asked) -> dict[str, object]:
        one = self._asking
        asked = messages(first, second, one.criterion)
        return {
            "model": one.model,
            "messages": asked,
            "temperature": one.temperature,
            one.tokens_option: one.max_tokens,
        }

    def _verdicts(self, keyed: Mapping[bytes, Mapping[str, object]]) -> Iterator[tuple[bytes, float | str]]:
        """Of each request what the reply says, or why there is none, as they come."""
        ask = []
        for key, body in keyed.items():
            reply = self._cache.get(key)
            wins = None if reply is None else _wins(reply)
            if wins is None:
                ask.append((key, body))
                continue
            self.account.cached += 1
            yield key, wins
        for key, outcome in _at_once(self._address, ask, self._asking.at_once):
            if isinstance(outcome, RequestFailedError):
                self.account.failed += 1
                yield key, str(outcome)
                continue
            self._count(outcome)
            wins = _wins(outcome)
            if wins is None:
                self.account.not_understood += 1
                yield key, self._not_understood(outcome)
                continue
            # The others are asked again another time, which may be understood.
            self._cache.put(key, outcome)
            yield key, wins

    def _count(self, reply: Reply) -> None:
        self.account.asked += 1
        self.account.prompt_tokens += reply.prompt_tokens or 0
        self.account.completion_tokens += reply.completion_tokens or 0
        self.account.uncounted += reply.prompt_tokens is None or reply.completion_tokens is None

    def _not_understood(self, reply: Reply) -> str:
        cut = "" if reply.finished else f", cut at {self._asking.max_tokens} tokens"
        return f"the reply is not understood{cut}: {' '.join(reply.text.split())[-80:]!r}"


def _wins(reply: Reply) -> float | None:
    """What a whole reply says; None where it was cut or is not understood."""
    return wins_of_first(reply.text) if reply.finished else None


def _of_replies(verdicts: Sequence[float | str]) -> BothOrders:
    """The verdicts on (first, second) and on (second, first), the latter turned round; none: the answers are one."""
    if not verdicts:
        return BothOrders(0.5, 0.5)
    wins, other = (verdict if isinstance(verdict, float) else None for verdict in verdicts)
    why = next((verdict for verdict in verdicts if isinstance(verdict, str)), None)
    return BothOrders(wins, None if other is None else 1.0 - other, why)


def _at_once(
    address: ChatAddress, bodies: Sequence[tuple[bytes, Mapping[str, object]]], most: int
) -> Iterator[tuple[bytes, Reply | RequestFailedError]]:
    """Outcomes in the order in which they come; of the requests so many at most are on their way at a time.

    Where one ends everything, those that wait are not made. Threads do not keep the program from ending.

    Raises:
        JudgeError: no other request would get a reply either, or the address was stopped before.
    """
    if bodies and address.stopped:
        raise JudgeError(f"{address.address} is asked nothing more, as it refused what it was asked before.")
    left: SimpleQueue[tuple[bytes, Mapping[str, object]]] = SimpleQueue()
    outcomes: SimpleQueue[tuple[bytes, Reply | BaseException]] = SimpleQueue()
    for body in bodies:
        left.put(body)

    def work() -> None:
        while not address.stopped:
            try:
                key, body = left.get_nowait()
            except Empty:
                return
            try:
                outcomes.put((key, address.ask(body)))
            except RequestFailedError as error:
                outcomes.put((key, error))
            except BaseException as error:  # told to whoever waits for it, who may be busy while others go on asking
                outcomes.put((key, error))
                address.stop()

    for _ in range(min(most, len(bodies))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in bodies:
            key, outcome = outcomes.get()
            if isinstance(outcome, BaseException) and not isinstance(outcome, RequestFailedError):
                raise outcome
            yield key, outcome
    except BaseException:
        address.stop()
        raise
