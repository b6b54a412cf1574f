"""What people are told of pairs that are used all the same."""

from __future__ import annotations

import pytest
import tiny_templates
from tiny_tokenizers import BOS, EOS, UNK, byte_level, pair_tokenizer, word_level

from tiltlm.data.examples import Example, Message, Text
from tiltlm.data.tokens.token_notes import notes_on_tokens
from tiltlm.runs.data_account import Remark


def messages(role: str, text: str) -> tuple[Message, ...]:
    return (Message(role, text),)


def text_pair(number: int, prompt: str = "Q:", chosen: str = " yes", rejected: str = " no") -> Example:
    return Example.pair(f"p:{number}", prompt, chosen, rejected)


def chat_pair(number: int, prompt: Text = "is it?", chosen: str = "yes", rejected: str = "no") -> Example:
    prompt = messages("user", prompt) if isinstance(prompt, str) else prompt
    return Example.pair(f"p:{number}", prompt, messages("assistant", chosen), messages("assistant", rejected))


def noted(
    pairs: list[Example], template: str | None = None, bos: bool = False, **settings: object
) -> tuple[list[str], list[Remark]]:
    tokenizer = pair_tokenizer(byte_level(bos=bos, chat_template=template), **settings)
    return notes_on_tokens([tokenizer(pairs)], tokenizer)


def test_ordinary_pairs_have_no_notes() -> None:
    assert noted([text_pair(1)]) == noted([chat_pair(1)], tiny_templates.PLAIN) == ([], [])
    assert noted([]) == ([], [])


def test_what_the_template_leaves_out_is_counted_with_all_ids() -> None:
    lost = (Message("system", "Be brief."), Message("user", "is it?"))
    pairs = [chat_pair(n, lost if n % 3 else "is it?") for n in range(9)]
    notes, remarks = noted(pairs, tiny_templates.TWO_ROLES)
    what = "The chat template leaves out the text of system messages"
    assert notes == [f"{what}: 6 of 9 pairs (p:1, p:2, p:4, ...)."]
    assert remarks == [Remark(what, ("p:1", "p:2", "p:4", "p:5", "p:7", "p:8"))]


@pytest.mark.parametrize(
    "pair",
    [
        text_pair(1, f"Q{BOS}:"),
        text_pair(1, f"{BOS}{BOS}Q:"),
        text_pair(1, chosen=f"{BOS} yes"),
        text_pair(1, f"{BOS}Q:", rejected=f" no {BOS}no"),
        chat_pair(1, f"{BOS}is it?"),
        chat_pair(1, rejected=f"no{BOS}"),
    ],
)
def test_a_bos_within_the_datas_own_text_is_noted(pair: Example) -> None:
    notes, remarks = noted([text_pair(0), pair], tiny_templates.BOS_EVERY_TURN, bos=True)
    assert [note for note in notes if "BOS" in note] == [
        f"The text itself holds the BOS token {BOS} within: 1 of 2 pairs (p:1)."
    ]
    assert [remark.ids for remark in remarks] == [("p:1",)]


def test_a_bos_that_belongs_there_is_not_noted() -> None:
    assert not noted([text_pair(1, f"{BOS}Q:")], bos=True)[1]
    two_turns = (Message("user", "Hi"), Message("assistant", "yes"), Message("user", "is it?"))
    assert not noted([chat_pair(1, two_turns)], tiny_templates.BOS_EVERY_TURN, bos=True)[1]
    # Turns that the data has marked itself, with the mark of the template.
    marked = tiny_templates.PLAIN.replace("<assistant>", "{{ bos_token }}assistant:")
    assert not noted([text_pair(1, f"{BOS}user: Hi\n{BOS}assistant:")], marked, bos=True)[1]


@pytest.mark.parametrize(
    ("pair", "goes_on"),
    [
        (text_pair(1, chosen=f" yes{EOS} and"), True),
        (text_pair(1, rejected=f"{EOS}no"), True),
        (chat_pair(1, chosen=f"yes{EOS}\n<user>why?"), True),
        (text_pair(1, chosen=f" yes{EOS}\n", rejected=f" no{EOS}{EOS} "), False),
        (text_pair(1, f"Hi{EOS}Q:"), False),
        (chat_pair(1, f"Hi{EOS}Q"), False),
    ],
)
def test_an_end_of_sequence_within_an_answer_is_noted(pair: Example, goes_on: bool) -> None:
    notes, remarks = noted([text_pair(0), pair], tiny_templates.PLAIN)
    what = f"An answer holds the end-of-sequence token {EOS}, goes on after it, and is scored to its end"
    assert [note for note in notes if "goes on" in note] == ([f"{what}: 1 of 2 pairs (p:1)."] if goes_on else [])
    assert remarks == ([Remark(what, ("p:1",))] if goes_on else [])


def test_characters_that_the_tokenizer_has_no_token_for_are_noted() -> None:
    words = word_level("Q", ":", "yes", "no")
    words.unk_token = UNK
    tokenizer = pair_tokenizer(words)
    pairs = [text_pair(0), text_pair(1, "Q, what:"), text_pair(2, rejected=" nein")]
    what = f"The tokenizer has no token for some characters, and {UNK} stands in their place"
    assert notes_on_tokens([tokenizer(pairs)], tokenizer) == (
        [f"{what}: 2 of 3 pairs (p:1, p:2)."],
        [Remark(what, ("p:1", "p:2"))],
    )
    # Some byte-level tokenizers name another token so, which stands at the end of every answer.
    words.unk_token = EOS
    assert notes_on_tokens([tokenizer(pairs[:1])], tokenizer) == ([], [])


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (tiny_templates.EVERY_TURN + "<assistant>", "<eos>\\n<assistant>', which is scored"),
        (tiny_templates.PLAIN.replace("<eos>", "<eos>{{ messages | length }}"), "<eos>2\\n', which is scored"),
        (tiny_templates.PLAIN.replace("<eos>", "\n{{ m.content }}<eos>"), "more than once"),
        (tiny_templates.PLAIN, None),
        (tiny_templates.PLAIN.replace("<eos>", "<eos><eos>"), None),
        (tiny_templates.PLAIN.replace("<eos>", " ### End"), " ### End\\n', which is scored"),
        (f"{{% for m in messages %}}{{{{ m.content }}}}{EOS}{BOS}{{% endfor %}}", f"{EOS}{BOS}', which is scored"),
        (f"{{% for m in messages %}}{{{{ m.content }}}}{EOS}{{% endfor %}}", None),
        (tiny_templates.NO_SYSTEM, None),
    ],
)
def test_what_a_template_writes_after_an_answer_is_noted(template: str, what: str | None) -> None:
    notes = [note for note in noted([chat_pair(1)], template, bos=True)[0] if "scored" in note]
    assert not notes if what is None else len(notes) == 1 and what in notes[0]
    assert not [note for note in noted([text_pair(1)], template)[0] if "scored" in note]


def test_text_for_a_model_with_a_template_is_noted_unless_it_is_in_the_templates_form() -> None:
    (note,) = noted([text_pair(1)], tiny_templates.PLAIN)[0]
    assert "has a chat template, and it is not applied to 1 pairs given as text" in note and '"role": "user"' in note
    assert not noted([text_pair(1, "<user>Q<eos>\n<assistant>")], tiny_templates.PLAIN)[0]
    assert not noted([text_pair(1, f"user Q{EOS} answer:")], tiny_templates.PLAIN)[0]


@pytest.mark.parametrize(
    ("prompt", "chosen", "touching"),
    [
        ("Q?", "yes", True),
        ("Q?", " yes", False),
        ("Q?\n", "yes", False),
        ("それは?", "はい", False),
        ("[/INST]", "yes", False),
    ],
)
def test_texts_that_touch_are_noted(prompt: str, chosen: str, touching: bool) -> None:
    notes, _ = noted([text_pair(n, prompt, chosen) for n in range(3)])
    assert bool(notes) == touching
    assert not touching or "touch without white space in 3 of 3 pairs" in notes[0]


def test_a_question_with_more_than_answered_chats_have_is_noted() -> None:
    (note,) = noted([chat_pair(1)], tiny_templates.CUTS_AND_OPENS)[0]
    assert "'<think>\\n'" in note and "1 of 1 chats, first p:1" in note
    assert not noted([chat_pair(1)], tiny_templates.OPENS_THOUGHT)[0]


@pytest.mark.parametrize("bos", [True, False])
def test_text_for_a_model_with_several_templates_needs_none_of_them(bos: bool) -> None:
    named = {"first": tiny_templates.PLAIN, "other": tiny_templates.TRIMS}
    tokenizer = pair_tokenizer(byte_level(bos=bos, chat_template=named))
    (note,) = notes_on_tokens([tokenizer([text_pair(1)])], tokenizer)[0]
    assert "has a chat template, and it is not applied to 1 pairs given as text" in note
