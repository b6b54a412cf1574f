"""Chats as text and back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tiltlm.data.examples import Message
from tiltlm.data.turns import as_chat, in_words

WORDS = st.text("ab c?", min_size=1).map(str.strip).filter(bool)


def test_a_chat_in_words() -> None:
    chat = (Message("system", "Be kind."), Message("user", "Why?"), Message("assistant", "So."), Message("tool", "3"))
    assert in_words(chat) == "System: Be kind.\n\nHuman: Why?\n\nAssistant: So.\n\nTool: 3"
    assert in_words("\n\nHuman: as it is") == "\n\nHuman: as it is"


def test_an_assistants_answer_is_its_content_with_all_it_says() -> None:
    assert in_words((Message("assistant", " So."),)) == " So."
    called = Message("assistant", "", (("tool_calls", '[{"name": "f"}]'),))
    assert in_words((called,)) == 'tool_calls: [{"name": "f"}]'
    assert in_words((Message("user", "Why?"), called)) == 'Human: Why?\n\nAssistant: tool_calls: [{"name": "f"}]'


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), WORDS), min_size=2, max_size=5))
def test_turns_come_back_from_words(turns: list[tuple[str, str]]) -> None:
    chat = tuple(Message(role, content) for role, content in turns)
    assert as_chat(in_words(chat)) == chat


def test_what_is_no_dialogue_is_one_question() -> None:
    assert as_chat(" Why? ") == (Message("user", "Why?"),)
    assert as_chat("Be kind.\n\nHuman: Why?\n\nAssistant:") == (Message("system", "Be kind."), Message("user", "Why?"))
