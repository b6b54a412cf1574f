"""A language model as a judge: both orders, ties, failures that are counted, and replies that are asked for once."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from bad_server import Answered, Served, completion, served, texts_of
from hypothesis import given
from hypothesis import strategies as st

from tiltlm.config.judge_words import judge_word
from tiltlm.errors import ConfigError, JudgeError
from tiltlm.judges.chat_requests import ChatAddress, Patience
from tiltlm.judges.judge_interface import Asked, BothOrders
from tiltlm.judges.language_model import Asking, LanguageModel, Prices
from tiltlm.judges.verdict_prompt import wins_of_first

KEY = "plain-words-of-a-key"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def judge(server: Served, tries: int = 3, **asking: Any) -> LanguageModel:
    address = ChatAddress(server.address, None, Patience(tries, 5.0), lambda seconds: None)
    return LanguageModel(judge_word(server.address), Asking("m", **asking), address, Prices(3.0, 15.0))


def pair(first: str, second: str, prompt: str = "Why?") -> tuple[Asked, Asked]:
    return Asked(prompt, None, first), Asked(prompt, None, second)


def longer(body: dict[str, Any], number: int) -> Answered:
    first, second = map(len, texts_of(body))
    return completion("TIE" if first == second else "A" if first > second else "B")


PAIRS = [pair("long answer", "short"), pair("no", "never ever"), pair("one", "two"), pair("same", "same")]


def test_the_better_answer_wins_in_both_orders() -> None:
    done: list[int] = []
    with served(longer) as server:
        one = judge(server)
        assert one.compare(PAIRS, done.append) == [1.0, 0.0, 0.5, 0.5]
    assert sum(done) == 4
    assert len(server.asked) == 6, "both orders of three pairs; answers that are the same are not asked about"
    assert sorted(map(texts_of, server.asked)) == sorted(
        [(a.answer, b.answer) for a, b in PAIRS[:3]] + [(b.answer, a.answer) for a, b in PAIRS[:3]]
    )
    body = server.asked[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.0, 16)
    assert "Why?" in body["messages"][1]["content"]
    assert (one.account.asked, one.account.prompt_tokens, one.account.completion_tokens) == (6, 60, 12)
    assert "That cost 0.0004 by the prices given." in one.remarks()  # (60 * 3 + 12 * 15) / 1e6


@pytest.mark.parametrize(("always", "first"), [("A", True), ("B", False)])
def test_a_judge_by_place_only_ties_and_is_seen(always: str, first: bool) -> None:
    with served(lambda body, number: completion(always)) as server:
        orders = judge(server).both_orders(PAIRS[:3])
    assert [one.verdict for one in orders] == [0.5] * 3
    assert [one.favours_first_place for one in orders] == [first] * 3


@given(st.sampled_from([0.0, 0.5, 1.0, None]), st.sampled_from([0.0, 0.5, 1.0, None]))
def test_turning_a_pair_round_turns_its_verdict(wins: float | None, turned: float | None) -> None:
    """And of what stood in the first place as much is said."""
    other, others_turned = (None if one is None else 1 - one for one in (turned, wins))
    here, there = BothOrders(wins, turned), BothOrders(other, others_turned)
    assert (here.verdict is None) == (None in (wins, turned)) == (there.verdict is None)
    if here.verdict is not None and there.verdict is not None:
        assert here.verdict == 1 - there.verdict
        assert here.favours_first_place == there.favours_first_place
        assert (here.favours_first_place is None) == (wins == turned)
    if wins is not None and wins == turned:
        assert here.verdict == wins


@pytest.mark.parametrize(
    ("reply", "wins"),
    [
        ("A", 1.0),
        (" b.\n", 0.0),
        ("**TIE**", 0.5),
        ("[[A]]", 1.0),
        ("Answer: B", 0.0),
        ("answer A", 1.0),
        ("Both are fine.\n\nVerdict: tie", 0.5),
        ("<think>A is bad,\nB</think>\nB", 0.0),
        ("", None),
        ("Answer A is better.", None),
        ("A or B", None),
        ("A, B", None),
        ("AB", None),
        ("C", None),
        ("not A", None),
        ("A\nbecause it is good", None),
        ("I cannot compare these.", None),
    ],
)
def test_a_reply_is_understood_or_not(reply: str, wins: float | None) -> None:
    assert wins_of_first(reply) == wins


def test_what_is_not_understood_or_cut_is_a_counted_failure() -> None:
    def answer(body: dict[str, Any], number: int) -> Answered:
        first, _ = texts_of(body)
        return {"long answer": completion("I like both"), "no": completion("A", "length")}.get(first, completion("B"))

    done: list[int] = []
    with served(answer) as server:
        one = judge(server)
        orders = one.both_orders(PAIRS[:3], done.append)
    assert [found.verdict for found in orders] == [None, None, 0.5] and sum(done) == 3
    assert orders[0].why == "the reply is not understood: 'I like both'"
    assert orders[1].why == "the reply is not understood, cut at 16 tokens: 'A'"
    assert one.account.not_understood == 2 and "2 replies were not understood" in one.remarks()[-1]


def test_requests_that_fail_are_counted_and_not_kept() -> None:
    broken = threading.Event()
    broken.set()

    def answer(body: dict[str, Any], number: int) -> Answered:
        return (503, {}, "busy") if broken.is_set() and "no" in texts_of(body) else longer(body, number)

    with served(answer) as server:
        one = judge(server, tries=2)
        orders = one.both_orders(PAIRS[:2])
        assert [found.verdict for found in orders] == [1.0, None]
        assert "HTTP 503 Service Unavailable: busy (tried 2 times)" in str(orders[1].why)
        assert (one.account.failed, one.account.retried, one.account.asked) == (2, 2, 2)
        broken.clear()
        asked = len(server.asked)
        again = judge(server)
        assert again.compare(PAIRS[:2]) == [1.0, 0.0]
        assert len(server.asked) == asked + 2 and again.account.cached == 2


def test_a_second_run_asks_nothing() -> None:
    with served(longer) as server:
        first = judge(server).both_orders(PAIRS)
        asked = len(server.asked)
        again = judge(server)
        assert again.both_orders(PAIRS) == first
        assert len(server.asked) == asked
        assert (again.account.cached, again.account.asked, again.account.prompt_tokens) == (6, 0, 0)
        for other in ({"temperature": 0.5}, {"max_tokens": 99}, {"criterion": "shorter"}):
            judge(server, **other).compare(PAIRS[:1])
        assert len(server.asked) == asked + 6, "whatever decides a reply is part of its key"


def test_what_is_asked_twice_in_one_run_is_asked_once() -> None:
    with served(longer) as server:
        assert judge(server).compare([PAIRS[0]] * 5 + [PAIRS[0][::-1]]) == [1.0] * 5 + [0.0]
        assert len(server.asked) == 2


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_requests_are_made_at_once_than_may_be(most: int) -> None:
    gate = threading.Barrier(most)

    def answer(body: dict[str, Any], number: int) -> Answered:
        gate.wait(5.0)  # until as many are there
        return longer(body, number)

    with served(answer) as server:
        judge(server, at_once=most).compare([pair("a" * n, "b") for n in range(2, 5)])
        assert len(server.asked) == 6 and server.most_at_once == most


def test_an_address_that_refuses_everything_ends_the_work() -> None:
    with served(lambda body, number: (401, {}, "wrong key")) as server:
        with pytest.raises(JudgeError, match="look at the key"):
            judge(server, at_once=2).compare([pair("a" * n, "b") for n in range(2, 30)])
        assert len(server.asked) <= 4


def test_an_address_that_ended_the_work_says_so_when_it_is_asked_again() -> None:
    with served(lambda body, number: (401, {}, "wrong key")) as server:
        one = judge(server)
        with pytest.raises(JudgeError, match="look at the key"):
            one.compare(PAIRS)
        found: list[str] = []
        # In a thread of its own, as it might wait for ever.
        again = threading.Thread(target=lambda: found.append(_raised(one)), daemon=True)
        again.start()
        again.join(10.0)
    assert found and "is asked nothing more" in found[0]


def _raised(one: LanguageModel) -> str:
    try:
        one.compare(PAIRS)
    except JudgeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("first", [completion("I like both"), completion("A", "length")], ids=["unclear", "cut"])
def test_a_reply_that_is_not_understood_is_asked_for_again(first: Answered) -> None:
    replies = [first, first, completion("A"), completion("B")]
    with served(lambda body, number: replies[number]) as server:
        assert judge(server).compare(PAIRS[:1]) == [None]
        again = judge(server, at_once=1)
        assert again.compare(PAIRS[:1]) == [1.0]
        assert len(server.asked) == 4 and again.account.cached == 0


def test_the_key_stands_in_no_file_and_no_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even where the server sends it back, in replies that are understood, are not, and in errors."""

    def answer(body: dict[str, Any], number: int) -> Answered:
        replies: list[Answered] = [
            completion(f"{KEY}\nA"),
            completion(f"I saw {KEY}"),
            (500, {}, f"key {KEY} broke"),
            (400, {}, f"bad {KEY}"),
        ]
        return replies[number % 4]

    with served(answer) as server:
        one = judge(server, tries=1, at_once=1)
        orders = one.both_orders(PAIRS[:3])
        assert set(server.keys) == {f"Bearer {KEY}"}
        assert all(KEY not in str(body) for body in server.asked)
    said = [repr(orders), repr(one.facts()), *one.remarks(), repr(one.account), *capsys.readouterr()]
    assert not any(KEY in text for text in said)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not any(KEY.encode() in path.read_bytes() for path in files)
    for path in files:
        assert KEY not in "\n".join(sqlite3.connect(path).iterdump())


def test_what_decides_its_judgements_is_told() -> None:
    with served(longer) as server:
        facts = judge(server).facts()
        assert facts["address"] == server.address and facts["model"] == "m" and "at_once" not in facts
        assert judge(server, criterion="shorter").facts() != facts
        assert judge(server, at_once=9).facts() == facts


@pytest.mark.parametrize(
    "asking", [{"temperature": -1.0}, {"temperature": 3.0}, {"max_tokens": 0}, {"at_once": 0}, {"criterion": " "}]
)
def test_settings_out_of_range_are_refused(asking: dict[str, Any]) -> None:
    with served(longer) as server, pytest.raises(ConfigError):
        judge(server, **asking)


def test_a_damaged_cache_is_said(tmp_path: Path) -> None:
    with served(longer) as server:
        judge(server).compare(PAIRS[:1])
        (kept,) = (tmp_path / "cache" / "replies").iterdir()
        kept.write_bytes(b"not a database" * 100)
        with pytest.raises(ConfigError, match="where replies of language models are kept, cannot be used"):
            judge(server)
