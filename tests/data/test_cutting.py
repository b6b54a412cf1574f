"""What goes of pairs that are too long: turns of chats, the beginning of questions, the ends of completions."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import tiny_templates
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import EOS, Outcomes, byte_level, outcomes, pair_tokenizer

from tiltlm.data.examples import Example, Message
from tiltlm.data.tokens.cutting import fewer_turns, last_turn
from tiltlm.data.tokens.token_columns import TokenizedExample, TokenizedSequence
from tiltlm.data.tokens.tokenization import ExampleTokenizer

S, U, A, T = (partial(Message, role) for role in ("system", "user", "assistant", "tool"))
Chat = tuple[Message, ...]


def tokenizer_of(template: str | None, **settings: Any) -> ExampleTokenizer:
    return pair_tokenizer(byte_level(chat_template=template), **settings)


def cut(template: str | None, prompt: Chat, chosen: str = "yes", rejected: str = "no", **settings: Any) -> Outcomes:
    pair = Example.pair("p:1", prompt, (A(chosen),), (A(rejected),))
    return outcomes(tokenizer_of(template, **settings), pair)


def only(result: Outcomes) -> TokenizedExample:
    assert not result.dropped, result.dropped
    return result.examples[0]


def text_of(sequence: TokenizedSequence, part: slice = slice(None)) -> str:
    return str(byte_level().decode(sequence.ids[part].tolist()))


def tokens(text: str) -> int:
    return len(byte_level().tokenize(text))


# Whole turns


@pytest.mark.parametrize(
    ("prompt", "left"),
    [
        ((U("1"), A("2"), U("3"), A("4"), U("5")), [(U("3"), A("4"), U("5")), (U("5"),)]),
        ((S("0"), U("1"), A("2"), U("3")), [(S("0"), U("3"))]),
        ((S("0"), U("1"), A("2"), T("3"), A("4"), U("5"), A("6"), T("7")), [(S("0"), U("5"), A("6"), T("7"))]),
        ((U("1"), U("2"), A("3"), U("4"), U("5")), [(U("4"), U("5"))]),
        ((S("0"), A("1"), U("2"), A("3"), U("4")), [(S("0"), U("2"), A("3"), U("4")), (S("0"), U("4"))]),
        ((S("0"), U("1")), []),
        ((S("0"),), []),
    ],
)
def test_turns_go_whole_and_the_oldest_first(prompt: Chat, left: list[Chat]) -> None:
    assert list(fewer_turns(prompt)) == left
    assert last_turn(prompt) == (left[-1] if left else prompt)


chats = st.tuples(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), max_size=5),
    st.integers(1, 12),
)


@settings(max_examples=60, deadline=None)
@given(lengths=chats, system=st.booleans(), max_length=st.integers(8, 120), template=st.sampled_from(["PLAIN", None]))
def test_what_is_left_of_a_chat_is_its_end_as_the_template_writes_it(
    lengths: tuple[list[tuple[int, int]], int], system: bool, max_length: int, template: str | None
) -> None:
    """Against the whole chat, and against the template given the turns that are left."""
    turns, last = lengths
    messages = [m for user, answer in turns for m in (U(" no" * user), A(" yes" * answer))]
    prompt = (*([S("Be brief.")] if system else []), *messages, U(" no" * last + " is it?"))
    source = vars(tiny_templates)[template] if template else None
    result = cut(source, prompt, max_length=max_length)
    written = tokenizer_of(source, max_length=max_length)
    whole = cut(source, prompt, max_length=100_000).examples[0]
    if len(whole.chosen.ids) <= max_length and len(whole.rejected.ids) <= max_length:
        assert only(result).chosen.ids.tolist() == whole.chosen.ids.tolist() and not only(result).prompt_tokens_cut
        return
    if result.dropped:
        least = written.render_prompt((*prompt[:system], U("?")))[0]
        assert tokens(least) + 2 > max_length - 2
        return
    pair, rendered = only(result), result.rendered[0]
    assert max(len(pair.chosen.ids), len(pair.rejected.ids)) <= max_length
    assert pair.prompt_tokens_cut == whole.chosen.first_scored - pair.chosen.first_scored > 0
    kept = rendered.source.prompt
    assert isinstance(kept, tuple) and kept[:system] == prompt[:system]
    assert text_of(pair.chosen, slice(pair.chosen.first_scored)) == written.render_prompt(kept)[0]
    # The end of the chat; of the last question, if it stands alone, perhaps the end.
    body, full = kept[system:], prompt[system:]
    assert full[len(full) - len(body) + 1 :] == body[1:] and full[-len(body)].content.endswith(body[0].content)
    assert body[0].role == "user" and (len(body) == 1 or body[0] == full[-len(body)])
    # No more has gone than had to.
    more = [] if body[0] != full[-len(body)] else [prompt[: system + 0] + full[-len(body) - 2 :]]
    for longer in more if len(body) < len(full) else []:
        assert tokens(written.render_prompt(longer)[0] + f"yes{EOS}") > max_length


def test_a_template_that_wants_turns_to_alternate_takes_what_is_left() -> None:
    prompt = (U(" no" * 9), A("yes"), U(" no" * 9), A("yes"), U("is it?"))
    result = cut(tiny_templates.ALTERNATES, prompt, max_length=40)
    assert only(result).prompt_tokens_cut and result.rendered[0].source.prompt[-1] == prompt[-1]


def test_the_longer_completion_cuts_the_prompt_of_both_sides_alike() -> None:
    prompt = (U(" no" * 9), A("yes"), U("is it?"))
    pair = only(cut(tiny_templates.PLAIN, prompt, " yes" * 9, "no", max_length=40))
    assert pair.chosen.first_scored == pair.rejected.first_scored
    assert text_of(pair.rejected) == f"<user>is it?{EOS}\n<assistant>no{EOS}"


def test_a_prompts_own_limit_takes_turns_too() -> None:
    prompt = (U(" no" * 9), A("yes"), U("is it?"))
    pair = only(cut(tiny_templates.PLAIN, prompt, max_prompt_length=30))
    assert text_of(pair.chosen) == f"<user>is it?{EOS}\n<assistant>yes{EOS}"


def test_a_chat_that_the_system_alone_fills_is_dropped() -> None:
    (dropped,) = cut(tiny_templates.PLAIN, (S(" no" * 90), U("is it?")), max_length=60).dropped
    assert dropped.reason == "prompt too long" and "data.max_length 60" in str(dropped.detail)


# Completions


@settings(max_examples=80, deadline=None)
@given(
    prompt=st.integers(1, 30),
    completions=st.tuples(st.integers(1, 30), st.integers(1, 30)).filter(lambda both: both[0] != both[1]),
    max_length=st.integers(4, 40),
    as_chat=st.booleans(),
)
def test_truncated_completions_fill_what_the_prompt_leaves(
    prompt: int, completions: tuple[int, int], max_length: int, as_chat: bool
) -> None:
    """Against the same pair without limits. The prompt need not give way below half of the length."""
    question, answers = "is" + " no" * prompt, [" yes" * count for count in completions]
    template = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<eos>{% endif %}{% endfor %}"

    def make(**settings: Any) -> Outcomes:
        if as_chat:
            return cut(template, (U(question),), answers[0], answers[1], **settings)
        return outcomes(tokenizer_of(None, **settings), Example.pair("p:1", question, answers[0], answers[1]))

    whole = only(make(max_length=1000))
    result = make(max_length=max_length, long_completions="truncate")
    start, longest = whole.chosen.first_scored, max(len(whole.chosen.ids), len(whole.rejected.ids))
    lost = max(0, min(longest - max_length, start - max_length // 2))
    room = max_length - (start - lost)
    if min(completions) >= room:
        assert [drop.reason for drop in result.dropped] == ["identical once cut"]
        return
    pair = only(result)
    assert pair.prompt_tokens_cut == lost
    for ours, full in ((pair.chosen, whole.chosen), (pair.rejected, whole.rejected)):
        expected = [*full.ids[lost:start], *full.ids[start : start + room]]
        # The beginning of a cut question may be other tokens than within it.
        assert ours.ids.tolist()[-room:] == expected[-room:] and ours.first_scored == start - lost
        assert ours.tokens_cut == max(0, full.scored_tokens - room)
        assert (int(ours.ids[-1]) == byte_level().eos_token_id) == (ours.tokens_cut == 0)
        assert 0 < ours.scored_tokens <= room


def test_what_fits_is_the_same_whether_or_not_completions_may_be_cut() -> None:
    prompt = (U("is it?"),)
    drop, truncate = (only(cut(tiny_templates.PLAIN, prompt, long_completions=way)) for way in ("drop", "truncate"))
    assert np.array_equal(drop.chosen.ids, truncate.chosen.ids) and truncate.chosen.tokens_cut == 0


@pytest.mark.parametrize("prompt", ["is it?", (U("is it?"),)])
def test_a_dropped_completion_names_the_option(prompt: str | Chat) -> None:
    long = " yes" * 90
    sides = (long, " no") if isinstance(prompt, str) else ((A(long),), (A("no"),))
    result = outcomes(tokenizer_of(tiny_templates.PLAIN, max_length=60), Example.pair("p:1", prompt, *sides))
    (dropped,) = result.dropped
    assert dropped.reason == "completion too long" and "data.long_completions to `truncate`" in str(dropped.detail)


# Prompts to be answered


@pytest.mark.parametrize("limit", ["max_length", "max_prompt_length", "room"])
def test_a_chat_to_be_answered_loses_turns_as_in_training(limit: str) -> None:
    prompt = (S("Be brief."), U(" no" * 9), A("yes"), U("is it?"))
    everything, least = (
        tokenizer_of(tiny_templates.PLAIN).render_prompt(p)[0] for p in (prompt, prompt[:1] + prompt[3:])
    )

    def ask(tokens_left: int) -> tuple[str, list[int]]:
        limits = {} if limit == "room" else {limit: tokens_left}
        return tokenizer_of(tiny_templates.PLAIN, **limits).ask(prompt, None, tokens_left if limit == "room" else None)

    for text, room in ((everything, tokens(everything)), (least, tokens(everything) - 1), (least, tokens(least))):
        asked, ids = ask(room)
        assert asked == text and byte_level().decode(ids) == text
    asked, ids = ask(tokens(least) - 2)
    assert asked == least.replace("is it?", "it?") and len(ids) <= tokens(least) - 2
