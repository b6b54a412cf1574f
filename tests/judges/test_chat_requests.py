"""Requests to servers that behave badly: what is tried again, what ends the work, and where the key goes."""

from __future__ import annotations

import email.utils
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bad_server import Answered, completion, served

from tiltlm.errors import ConfigError, JudgeError
from tiltlm.judges.chat_requests import ChatAddress, Patience, RequestFailedError, asked_wait

KEY = "plain-words-of-a-key"
BODY = {"model": "m", "messages": [{"role": "user", "content": "Is it so? \ud83d"}]}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def in_turn(*answers: Answered) -> Callable[[dict[str, Any], int], Answered]:
    return lambda body, number: answers[min(number, len(answers) - 1)]


def asked(
    address: str, waits: list[float], tries: int = 4, timeout: float = 5.0, key: str | None = None
) -> ChatAddress:
    return ChatAddress(address, key, Patience(tries, timeout), waits.append)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_what_passes_is_tried_again(status: int) -> None:
    waits: list[float] = []
    with served(in_turn((status, {}, "busy"), (status, {}, "busy"), completion("A"))) as server:
        one = asked(server.address, waits)
        reply = one.ask(BODY)
    assert (reply.text, reply.finished, reply.prompt_tokens, reply.completion_tokens) == ("A", True, 10, 2)
    assert one.retried == 2 and 0.75 <= waits[0] <= 1.25 and 1.5 <= waits[1] <= 2.5


def test_it_waits_as_long_as_the_server_says() -> None:
    waits: list[float] = []
    date = email.utils.formatdate(time.time() + 90, usegmt=True)
    limits = [(429, {"Retry-After": value}, "{}") for value in ("7", date, "soon")]
    with served(in_turn(*limits, completion("A"))) as server:
        asked(server.address, waits).ask(BODY)
    assert waits[0] == 7 and 80 <= waits[1] <= 91 and waits[2] <= 5
    with served(in_turn((429, {"Retry-After": "4000"}, ""))) as server:
        with pytest.raises(RequestFailedError, match="to be tried again in 4000 s"):
            asked(server.address, waits).ask(BODY)
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((500, {}, '{"error": {"message": "out of memory"}}'), "HTTP 500 Internal Server Error: out of memory"),
        ((200, {}, "<html>starting</html>"), "the reply is no chat completion: '<html>starting</html>'"),
        ((200, {}, '{"choices": []}'), "the reply is no chat completion"),
        ((200, {}, b"\xff\xfe"), "the reply is no chat completion"),
        ((200, {"Content-Length": "100"}, "short"), "the reply is no chat completion: 'short'"),
    ],
)
def test_what_never_passes_is_a_failure_after_so_many_tries(answer: Answered, said: str) -> None:
    waits: list[float] = []
    with served(in_turn(answer)) as server:
        with pytest.raises(RequestFailedError) as error:
            asked(server.address, waits, tries=3, timeout=1.0).ask(BODY)
        assert len(server.asked) == 3
    assert said in str(error.value) and "(tried 3 times)" in str(error.value)


def test_a_request_that_the_server_cannot_take_is_not_tried_again() -> None:
    with served(in_turn((400, {}, '{"error": "the prompt is too long"}'))) as server:
        with pytest.raises(RequestFailedError, match="HTTP 400 Bad Request: the prompt is too long"):
            asked(server.address, []).ask(BODY)
        assert len(server.asked) == 1
    nothing: Answered = (200, {}, '{"choices": [{"message": {"content": null}}]}')
    with served(in_turn(nothing)) as server, pytest.raises(RequestFailedError, match="has no text"):
        asked(server.address, []).ask(BODY)


@pytest.mark.parametrize(("status", "hint"), [(401, "look at the key"), (403, "the key"), (404, "the model's name")])
def test_what_all_requests_would_get_ends_the_work(status: int, hint: str) -> None:
    with served(in_turn((status, {}, '{"error": {"message": "no"}}'))) as server:
        with pytest.raises(JudgeError, match=f"HTTP {status} .*: no; look at .*{hint.removeprefix('look at ')}"):
            asked(server.address, []).ask(BODY)
        assert len(server.asked) == 1


def test_nobody_listening_and_nobody_answering_are_failures() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(RequestFailedError, match="refused"):
        asked(f"http://127.0.0.1:{port}/v1", [], tries=2).ask(BODY)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(RequestFailedError, match="timed out"):
            asked(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", [], tries=2, timeout=0.1).ask(BODY)


def test_a_redirect_is_not_followed_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with served(in_turn(completion("A"))) as other:
        for status in (301, 302, 303, 307, 308):
            target = f"{other.address}/chat/completions?token={KEY}"
            with served(in_turn((status, {"Location": target}, ""))) as server:
                with pytest.raises(JudgeError, match="leads on to http://127") as error:
                    asked(server.address, []).ask(BODY)
                assert server.keys == [f"Bearer {KEY}"] and KEY not in str(error.value)
        assert other.asked == [] and other.keys == []


def test_a_key_that_is_sent_back_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", KEY)
    answers = [(500, {}, f"bad {KEY}"), (200, {}, f"<{KEY}>"), completion(f"{KEY}\nA"), (401, {}, f"wrong: {KEY}")]
    with served(in_turn(*answers)) as server:
        one = asked(server.address, [], key="MINE")
        reply = one.ask(BODY)
        assert reply.text == "***\nA" and server.keys == [f"Bearer {KEY}"] * 3
        with pytest.raises(JudgeError) as error:
            one.ask(BODY)
    assert KEY not in str(error.value) and KEY not in repr(error.value.__cause__)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_a_key_goes_unencrypted_to_this_machine_alone(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert ChatAddress(f"http://{host}:1/v1")._key == KEY
    assert ChatAddress("https://example.org/v1")._key == KEY
    assert ChatAddress("http://example.org/v1")._key is None
    assert ChatAddress("http://example.org/v1", "OPENAI_API_KEY")._key == KEY


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host/v1",
        "file:///etc/passwd",
        "http://",
        "https:///v1",
        "http://host:port/v1",
        "http://host:99999/v1",
        f"https://me:{KEY}@host/v1",
        f"https://host/v1?key={KEY}",
        "https://host/v1#x",
        "https://ho st/v1",
        "https://host/v1\r\nX: y",
    ],
)
def test_what_is_no_plain_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError) as error:
        ChatAddress(address)
    assert KEY not in str(error.value)


def test_a_key_that_is_named_must_be_there_and_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="MINE, which should hold the key, is not set"):
        ChatAddress("https://host/v1", "MINE")
    monkeypatch.setenv("MINE", "two\nlines")
    with pytest.raises(ConfigError, match="holds what no key can hold"):
        ChatAddress("https://host/v1", "MINE")


def test_an_address_may_be_written_whole() -> None:
    for address in ("https://host/v1", "https://host/v1/", "https://host/v1/chat/completions"):
        assert ChatAddress(address).address == "https://host/v1"


def test_a_reply_that_no_file_could_hold_is_mended(tmp_path: Path) -> None:
    with served(in_turn((200, {}, '{"choices": [{"message": {"content": "A\\ud83d"}}]}'))) as server:
        reply = asked(server.address, []).ask(BODY)
    assert reply.text == "A?" and reply.prompt_tokens is None


def test_what_is_for_this_machine_goes_through_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(in_turn(completion("B"))) as proxy, served(in_turn(completion("A"))) as server:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, proxy.address.removesuffix("/v1"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert asked(server.address, []).ask(BODY).text == "A"
        assert not proxy.asked


def test_a_reply_that_was_cut_before_its_text_says_so() -> None:
    content = '{"choices": [{"message": {"content": null}, "finish_reason": "length"}]}'
    with (
        served(in_turn((200, {}, content))) as server,
        pytest.raises(RequestFailedError, match=r"was cut .*--max-tokens"),
    ):
        asked(server.address, []).ask(BODY)


def test_a_date_to_come_back_at_is_measured_by_the_clock_of_the_server() -> None:
    replied, then = "Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:52 GMT"
    assert asked_wait(then, replied) == 15.0
    assert asked_wait(replied, then) == 0.0
    assert asked_wait("3", None) == 3.0
    assert asked_wait(then, None) is None and asked_wait("soon", replied) is None and asked_wait(None, replied) is None
