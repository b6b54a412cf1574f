"""Tokens of pairs, with a tokenizer of GPT-2's kind and with small ones made for the purpose."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_data import SHARED, gpt2_tokenizer
from tiny_tokenizers import BOS, CHAT_TEMPLATE, EOS, Outcomes, byte_level, outcomes, pair_tokenizer, word_level
from transformers import PreTrainedTokenizerFast

from tiltlm.config import ComparisonConfig, DataConfig
from tiltlm.data.examples import Example, Message, Text
from tiltlm.data.tokens import tokenization
from tiltlm.data.tokens.token_columns import TokenizedExample, TokenizedSequence
from tiltlm.data.tokens.tokenization import ExampleTokenizer, check_limits
from tiltlm.errors import ConfigError, ModelError

HEADER = "\n\nAssistant:"


@cache
def gpt2() -> PreTrainedTokenizerFast:
    return gpt2_tokenizer()


@cache
def gpt2_itself() -> PreTrainedTokenizerFast:
    return gpt2_tokenizer(SHARED / "gpt2-bpe")


@cache
def plain() -> PreTrainedTokenizerFast:
    return byte_level()


@cache
def with_bos() -> PreTrainedTokenizerFast:
    return byte_level(bos=True)


TOKENIZERS = {"gpt2": gpt2, "plain": plain, "with bos": with_bos}
each_tokenizer = pytest.mark.parametrize(
    "make",
    [*TOKENIZERS.values(), pytest.param(gpt2_itself, marks=pytest.mark.shared_data)],
    ids=[*TOKENIZERS, "GPT-2's own"],
)


def tokenized(
    tokenizer: PreTrainedTokenizerFast, prompt: Text, chosen: Text, rejected: Text, **settings: object
) -> Outcomes:
    return outcomes(pair_tokenizer(tokenizer, **settings), Example.pair("p:1", prompt, chosen, rejected))


def only_pair(result: Outcomes) -> TokenizedExample:
    assert len(result.examples) == 1 and not result.dropped, result.dropped
    return result.examples[0]


def only_drop(result: Outcomes) -> tuple[str, str]:
    assert not result.examples and not result.rendered and len(result.dropped) == 1
    assert result.dropped[0].id == "p:1"
    return result.dropped[0].reason, str(result.dropped[0].detail)


def text_of(tokenizer: PreTrainedTokenizerFast, ids: np.ndarray) -> str:
    return str(tokenizer.decode(ids.tolist()))


def scored(tokenizer: PreTrainedTokenizerFast, sequence: TokenizedSequence) -> list[str]:
    return list(tokenizer.convert_ids_to_tokens(sequence.ids[sequence.first_scored :].tolist()))


def chat(*contents: str) -> tuple[Message, ...]:
    return tuple(Message("user" if turn % 2 == 0 else "assistant", text) for turn, text in enumerate(contents))


def answer(text: str) -> tuple[Message, ...]:
    return (Message("assistant", text),)


# Where a completion begins


@each_tokenizer
def test_a_text_is_tokenized_as_a_whole_and_a_token_across_the_border_is_scored(
    make: Callable[[], PreTrainedTokenizerFast],
) -> None:
    tokenizer = make()
    inside = only_pair(tokenized(tokenizer, "Answer:", " yes", " no"))
    across = only_pair(tokenized(tokenizer, "Answer: ", "yes", "no"))
    assert scored(tokenizer, inside.chosen) == ["Ġyes", tokenizer.eos_token]
    for side in ("chosen", "rejected"):
        a, b = getattr(inside, side), getattr(across, side)
        assert a.ids.tolist() == b.ids.tolist() and a.first_scored == b.first_scored
        assert a.ids.dtype == np.int32 and a.scored_tokens == 2


def test_the_border_can_lie_elsewhere_on_each_side() -> None:
    """One completion merges with the end of the prompt, the other does not."""
    pair = only_pair(tokenized(with_bos(), "yes, Ass", "istant", "essor"))
    assert scored(with_bos(), pair.chosen) == ["Assistant", EOS]
    assert text_of(with_bos(), pair.rejected.ids) == f"{BOS}yes, Assessor{EOS}"
    assert pair.chosen.first_scored < pair.rejected.first_scored


def test_a_prompt_that_melts_into_its_completion_needs_a_bos() -> None:
    pair = only_pair(tokenized(with_bos(), "Ass", "istant", "essor"))
    assert pair.chosen.first_scored == 1 and scored(with_bos(), pair.chosen) == ["Assistant", EOS]
    assert only_drop(tokenized(plain(), "Ass", "istant", "essor"))[0] == "empty prompt"


# BOS


def test_exactly_one_bos_where_the_model_wants_one() -> None:
    tokenizer = with_bos()
    for prompt in ("Answer:", f"{BOS}Answer:"):
        pair = only_pair(tokenized(tokenizer, prompt, " yes", " no"))
        for sequence in (pair.chosen, pair.rejected):
            assert sequence.ids[0] == tokenizer.bos_token_id
            assert (sequence.ids == tokenizer.bos_token_id).sum() == 1
        assert scored(tokenizer, pair.chosen) == ["Ġyes", EOS]
        ids = pair_tokenizer(tokenizer).encode_prompt(prompt)
        assert ids == pair.chosen.ids[: pair.chosen.first_scored].tolist()


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, BOS + CHAT_TEMPLATE])
def test_exactly_one_bos_whether_or_not_the_template_writes_it(template: str) -> None:
    tokenizer = byte_level(bos=True, chat_template=template)
    pair = only_pair(tokenized(tokenizer, chat("Hi"), answer("yes"), answer("no")))
    assert text_of(tokenizer, pair.chosen.ids) == f"{BOS}<user>Hi{EOS}\n<assistant>yes{EOS}"


def test_no_bos_where_the_model_wants_none() -> None:
    assert gpt2().bos_token_id is not None
    pair = only_pair(tokenized(gpt2(), "Answer:", " yes", " no"))
    assert text_of(gpt2(), pair.chosen.ids) == "Answer: yes<|endoftext|>"


def test_a_bos_in_the_text_survives_the_cut_though_none_is_added() -> None:
    begin = gpt2().bos_token
    pair = only_pair(tokenized(gpt2(), begin + "one two three four five", " yes", " no", max_length=5))
    assert text_of(gpt2(), pair.chosen.ids) == f"{begin} four five yes<|endoftext|>"


# EOS


@each_tokenizer
@pytest.mark.parametrize("ending", ["{}", "{}\n", "{} \n\n", "{}{}", "{}{}{}\n", ""])
def test_exactly_one_eos_ends_a_completion(make: Callable[[], PreTrainedTokenizerFast], ending: str) -> None:
    tokenizer = make()
    completion = " yes" + ending.replace("{}", str(tokenizer.eos_token))
    pair = only_pair(tokenized(tokenizer, "Answer:", completion, " no"))
    assert scored(tokenizer, pair.chosen) == ["Ġyes", tokenizer.eos_token]


def test_white_space_without_eos_is_part_of_the_completion() -> None:
    pair = only_pair(tokenized(plain(), "Answer:", " yes\n", " no"))
    assert scored(plain(), pair.chosen) == ["Ġyes", "Ċ", EOS]


def test_an_eos_within_a_completion_is_not_its_end() -> None:
    pair = only_pair(tokenized(plain(), "Answer:", f" yes{EOS} no", " no"))
    assert scored(plain(), pair.chosen) == ["Ġyes", EOS, "Ġno", EOS]


def test_an_eos_in_the_prompt_is_not_the_completions() -> None:
    pair = only_pair(tokenized(plain(), f"yes{EOS}", "no", "yes"))
    assert scored(plain(), pair.chosen) == ["no", EOS]


def test_an_eos_alone_is_an_answer() -> None:
    pair = only_pair(tokenized(plain(), "Answer:", EOS, " no"))
    assert scored(plain(), pair.chosen) == [EOS]


def test_as_is_leaves_the_end_alone() -> None:
    pair = only_pair(tokenized(plain(), "Answer:", f" yes{EOS}{EOS}\n", " no", eos="as-is"))
    assert scored(plain(), pair.chosen) == ["Ġyes", EOS, EOS, "Ċ"]
    assert scored(plain(), pair.rejected) == ["Ġno"]


def test_another_terminator_ends_a_completion_too() -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens(["<end>"], special_tokens=True)
    end = tokenizer.convert_tokens_to_ids("<end>")
    assert isinstance(end, int)
    make_pairs = ExampleTokenizer(tokenizer, DataConfig(), frozenset({end}))
    assert make_pairs.terminators == {end, tokenizer.eos_token_id}
    pair = only_pair(outcomes(make_pairs, Example.pair("p:1", "Answer:", " yes<end>\n", " no")))
    assert scored(tokenizer, pair.chosen) == ["Ġyes", "<end>"]
    assert scored(tokenizer, pair.rejected) == ["Ġno", EOS]


def test_a_padding_token_that_is_the_eos_changes_nothing() -> None:
    padded = byte_level(pad=EOS)
    assert padded.pad_token_id == padded.eos_token_id
    ours, same = (only_pair(tokenized(t, "Answer:", " yes", " no, the answer")) for t in (padded, plain()))
    assert ours.chosen.ids.tolist() == same.chosen.ids.tolist()
    assert ours.chosen.ids[-1] == padded.eos_token_id and scored(padded, ours.chosen) == ["Ġyes", EOS]


def test_a_tokenizer_without_eos_can_only_leave_the_end_alone() -> None:
    tokenizer = byte_level(eos=False)
    with pytest.raises(ModelError, match=r"has no end-of-sequence token.* --data\.eos as-is"):
        pair_tokenizer(tokenizer)
    pair = only_pair(tokenized(tokenizer, "Answer:", " yes", " no", eos="as-is"))
    assert scored(tokenizer, pair.chosen) == ["Ġyes"]


# Chats


def test_a_template_that_ends_turns_itself_gets_one_eos_and_nothing_after() -> None:
    tokenizer = byte_level(chat_template=CHAT_TEMPLATE)
    result = tokenized(tokenizer, chat("Hi", "no", "Why?"), answer("yes"), answer("no"))
    pair, rendered = only_pair(result), result.rendered[0]
    prompt = f"<user>Hi{EOS}\n<assistant>no{EOS}\n<user>Why?{EOS}\n<assistant>"
    assert rendered.prompt == prompt and rendered.header == "<assistant>"
    assert rendered.completions == (f"yes{EOS}\n", f"no{EOS}\n")
    assert text_of(tokenizer, pair.chosen.ids) == f"{prompt}yes{EOS}"
    assert scored(tokenizer, pair.chosen) == ["yes", EOS]
    as_is = only_pair(tokenized(tokenizer, chat("Hi"), answer("yes"), answer("no"), eos="as-is"))
    assert scored(tokenizer, as_is.chosen) == ["yes", EOS, "Ċ"]


def test_a_completion_of_several_turns_keeps_the_ends_between_them() -> None:
    tokenizer = byte_level(chat_template=CHAT_TEMPLATE)
    further = (*answer("yes"), *chat("Why?", "no"))
    pair = only_pair(tokenized(tokenizer, chat("Hi"), further, answer("no")))
    completion = text_of(tokenizer, pair.chosen.ids[pair.chosen.first_scored :])
    assert completion == f"yes{EOS}\n<user>Why?{EOS}\n<assistant>no{EOS}"


def test_a_prompt_that_the_template_writes_anew_is_trained_on_as_it_is_once_answered() -> None:
    tokenizer = byte_level(chat_template="{% for m in messages %}{{ messages | length }}{{ m.content }}{% endfor %}")
    pair = only_pair(tokenized(tokenizer, chat("Hi"), answer("yes"), answer("no")))
    assert text_of(tokenizer, pair.chosen.ids) == f"2Hi2yes{EOS}" and scored(tokenizer, pair.chosen) == ["yes", EOS]


def test_without_a_template_a_chat_becomes_a_dialogue() -> None:
    prompt = (Message("system", "Be brief."), *chat("Hi", "no", "Why?"))
    result = tokenized(plain(), prompt, answer("yes"), answer("no"))
    text = f"\n\nSystem: Be brief.\n\nHuman: Hi\n\nAssistant: no\n\nHuman: Why?{HEADER}"
    rendered = result.rendered[0]
    assert (rendered.prompt, rendered.header) == (text, HEADER)
    assert rendered.completions == (" yes", " no")
    assert text_of(plain(), only_pair(result).chosen.ids) == f"{text} yes{EOS}"


@pytest.mark.parametrize(
    ("prompt", "header"),
    [
        (f"\n\nHuman: Hi{HEADER}", HEADER),
        (f"\n\nHuman: Hi{HEADER} ", f"{HEADER} "),
        ("Hi\n\nBot:", "\n\nBot:"),
        ("Hi\nAssistant:", ""),
        (f"Hi{HEADER} Well,", ""),
        ("Hi", ""),
    ],
)
def test_the_header_of_verbatim_prompts(prompt: str, header: str) -> None:
    assert pair_tokenizer(plain()).render_prompt(prompt) == (prompt, header)


# Too long


def words(count: int) -> str:
    return " yes" * count


@settings(max_examples=120, deadline=None)
@given(
    prompt=st.integers(1, 12),
    header=st.sampled_from(["", HEADER]),
    completions=st.tuples(st.integers(1, 9), st.integers(1, 9)).filter(lambda both: both[0] != both[1]),
    bos=st.booleans(),
    max_length=st.integers(2, 24),
    for_prompt=st.none() | st.integers(1, 23),
)
def test_what_is_cut(
    prompt: int, header: str, completions: tuple[int, int], bos: bool, max_length: int, for_prompt: int | None
) -> None:
    """Against the same pair without limits, of which both sides lose the same tokens right after BOS."""
    tokenizer = with_bos() if bos else plain()
    texts = (words(prompt) + header, words(completions[0]), words(completions[1]))
    # Every word and EOS is a token; the header is four: two newlines, the name, the colon.
    keep, header_tokens = int(bos), 4 if header else 0
    before = keep + prompt + header_tokens
    whole = only_pair(tokenized(tokenizer, *texts))
    assert whole.prompt_tokens_cut == 0 and whole.chosen.first_scored == before
    assert [whole.chosen.scored_tokens, whole.rejected.scored_tokens] == [count + 1 for count in completions]

    over_length = max(0, before + max(completions) + 1 - max_length)
    cut = max(over_length, before - for_prompt if for_prompt else 0)
    result = tokenized(tokenizer, *texts, max_length=max_length, max_prompt_length=for_prompt)
    needed = max(keep + header_tokens, 1)
    if before - cut < needed:
        assert only_drop(result)[0] == ("completion too long" if before - over_length < needed else "header too long")
        return
    pair = only_pair(result)
    assert pair.prompt_tokens_cut == cut
    for ours, full in ((pair.chosen, whole.chosen), (pair.rejected, whole.rejected)):
        assert ours.ids.tolist() == [*full.ids[:keep], *full.ids[keep + cut :]]
        assert ours.first_scored == before - cut
        assert len(ours.ids) <= max_length and ours.first_scored <= (for_prompt or max_length)


def test_a_cut_prompt_keeps_bos_and_header() -> None:
    prompt = f"\n\nHuman: is the answer yes or no?{HEADER}"
    pair = only_pair(tokenized(with_bos(), prompt, " yes", " no", max_length=7))
    assert text_of(with_bos(), pair.chosen.ids) == f"{BOS}{HEADER} yes{EOS}"
    assert text_of(with_bos(), pair.rejected.ids) == f"{BOS}{HEADER} no{EOS}"
    reason, detail = only_drop(tokenized(with_bos(), prompt, " yes", " no", max_length=6))
    assert reason == "completion too long" and "2 tokens with data.max_length 6" in detail


def test_a_limit_shorter_than_the_header_is_named_with_the_one_that_works() -> None:
    prompt = f"\n\nHuman: is the answer yes or no?{HEADER}"
    reason, detail = only_drop(tokenized(with_bos(), prompt, " yes", " no", max_prompt_length=3))
    assert reason == "header too long" and "data.max_prompt_length 3" in detail
    enough = int(detail.split("set it to ")[1].split()[0])
    pair = only_pair(tokenized(with_bos(), prompt, " yes", " no", max_prompt_length=enough))
    assert text_of(with_bos(), pair.chosen.ids) == f"{BOS}{HEADER} yes{EOS}"
    assert only_drop(tokenized(with_bos(), prompt, " yes", " no", max_prompt_length=enough - 1))[0] == reason


def test_a_chats_header_is_kept() -> None:
    tokenizer = byte_level(chat_template=CHAT_TEMPLATE)
    texts = (chat("is the answer yes or no?"), answer("yes"), answer("no"))
    frame = len(tokenizer(f"<user>{EOS}\n<assistant>").input_ids)
    pair = only_pair(tokenized(tokenizer, *texts, max_length=frame + 4))
    assert text_of(tokenizer, pair.chosen.ids) == f"<user> no?{EOS}\n<assistant>yes{EOS}"
    assert pair.prompt_tokens_cut == len(tokenizer("is the answer yes or").input_ids)
    assert only_drop(tokenized(tokenizer, *texts, max_length=frame + 2))[0] == "prompt too long"


def test_one_long_side_cuts_both_alike() -> None:
    pair = only_pair(tokenized(plain(), words(10), words(1), words(6), max_length=12))
    assert pair.prompt_tokens_cut == 5
    assert pair.chosen.first_scored == pair.rejected.first_scored == 5
    assert [len(pair.chosen.ids), len(pair.rejected.ids)] == [7, 12]


# Pairs that cannot be used


def test_completions_without_tokens_are_dropped() -> None:
    tokenizer = word_level("yes", "no", "Answer", ":")
    for texts in ((" ", "yes"), ("yes", "\n\n")):
        assert only_drop(tokenized(tokenizer, "Answer:", *texts))[0] == "empty completion"


def test_completions_of_the_same_tokens_are_dropped() -> None:
    tokenizer = word_level("yes", "no", "Answer", ":")
    # Both are unknown words.
    assert only_drop(tokenized(tokenizer, "Answer:", "maybe", "perhaps"))[0] == "identical completions"
    assert only_drop(tokenized(tokenizer, "Answer:", "yes", " yes "))[0] == "identical completions"
    assert only_drop(tokenized(plain(), "Answer:", " yes", f" yes{EOS}\n"))[0] == "identical completions"
    only_pair(tokenized(plain(), "Answer:", " yes", f" yes{EOS}\n", eos="as-is"))


def test_a_prompt_without_tokens_needs_a_bos() -> None:
    reason, detail = only_drop(tokenized(word_level("yes", "no"), " ", "yes", "no"))
    assert reason == "empty prompt" and "BOS" in detail
    pair = only_pair(tokenized(word_level("yes", "no", bos=True), " ", "yes", "no"))
    assert pair.chosen.first_scored == 1 and pair.chosen.ids[0] == 1


def test_pairs_keep_their_order_whatever_the_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [Example.pair(f"p:{n}", f"Answer {n}:", " yes", " yes" if n % 3 == 0 else " no") for n in range(8)]
    at_once = pair_tokenizer(plain())(pairs)
    monkeypatch.setattr(tokenization, "EXAMPLES_AT_ONCE", 3)
    advanced: list[int] = []
    result = pair_tokenizer(plain())(pairs, advanced.append)
    assert advanced == [3, 3, 2]
    assert [pair.id for pair in result.examples] == ["p:1", "p:2", "p:4", "p:5", "p:7"]
    assert [drop.id for drop in result.dropped] == ["p:0", "p:3", "p:6"]
    assert result.places.tolist() == [1, 2, 4, 5, 7]
    assert [p.chosen.ids.tolist() for p in result.examples] == [p.chosen.ids.tolist() for p in at_once.examples]


# Any text

# Words and signs that merge with each other, and whatever else there is.
parts = st.sampled_from([" ", "\n", "yes", "Ass", "istant", "é", "🙂", ":"])
any_text = st.text(max_size=12) | st.lists(parts, max_size=8).map("".join)


@each_tokenizer
@settings(max_examples=60, deadline=None)
@given(texts=st.tuples(any_text, any_text, any_text))
def test_any_text_comes_back_from_its_tokens(
    make: Callable[[], PreTrainedTokenizerFast], texts: tuple[str, str, str]
) -> None:
    tokenizer = make()
    prompt, chosen, rejected = texts
    result = tokenized(tokenizer, prompt, chosen, rejected, max_length=100_000)
    if result.dropped:
        reason, _ = only_drop(result)
        # Nothing before the first scored token, and no BOS: then nothing predicts it.
        melted = make is not with_bos and reason == "empty prompt"
        assert melted or "" in (chosen, rejected) or chosen == rejected
        return
    pair = only_pair(result)
    begin = BOS if make is with_bos else ""
    for sequence, completion in ((pair.chosen, chosen), (pair.rejected, rejected)):
        assert text_of(tokenizer, sequence.ids) == f"{begin}{prompt}{completion}{tokenizer.eos_token}"
        assert 1 <= sequence.first_scored < len(sequence.ids)
        # What is not scored is prompt alone. (A token may hold half a character of it.)
        unscored = text_of(tokenizer, sequence.ids[: sequence.first_scored]).rstrip("\ufffd")
        assert f"{begin}{prompt}".startswith(unscored)


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.tuples(any_text, any_text, any_text), max_size=6),
    max_length=st.integers(1, 30),
    eos=st.sampled_from(["append", "as-is"]),
    bos=st.booleans(),
)
def test_every_pair_is_used_or_dropped(texts: list[tuple[str, str, str]], max_length: int, eos: str, bos: bool) -> None:
    tokenizer = pair_tokenizer(with_bos() if bos else plain(), max_length=max_length, eos=eos)
    result = tokenizer([Example.pair(f"p:{n}", *three) for n, three in enumerate(texts)])
    names = [item.id for item in (*result.examples, *result.dropped)]
    assert sorted(names) == sorted(f"p:{n}" for n in range(len(texts)))
    assert all(drop.reason and drop.detail for drop in result.dropped)
    for pair in result.examples:
        for sequence in (pair.chosen, pair.rejected):
            assert 1 <= sequence.first_scored < len(sequence.ids) <= max_length


# Prompts to be answered


@settings(max_examples=100, deadline=None)
@given(text=any_text, max_length=st.integers(2, 20), for_prompt=st.none() | st.integers(1, 19), bos=st.booleans())
def test_a_prompt_to_be_answered_is_cut_from_the_left_to_its_limit(
    text: str, max_length: int, for_prompt: int | None, bos: bool
) -> None:
    tokenizer = with_bos() if bos else plain()
    ids = pair_tokenizer(tokenizer, max_length=max_length, max_prompt_length=for_prompt).encode_prompt(text)
    whole = tokenizer(text).input_ids
    limit, keep = for_prompt or max_length, int(bos)
    assert len(ids) == min(limit, len(whole))
    assert ids[:keep] == whole[:keep] and ids[keep:] == whole[len(whole) - len(ids) + keep :]


@each_tokenizer
def test_a_prompt_is_answered_as_it_was_trained(make: Callable[[], PreTrainedTokenizerFast]) -> None:
    prompt = f"\n\nHuman: is the answer yes or no?{HEADER}"
    for limit in (None, 6, 9):
        pair = only_pair(tokenized(make(), prompt, " yes", " no", max_prompt_length=limit))
        ids = pair_tokenizer(make(), max_prompt_length=limit).encode_prompt(prompt)
        assert ids == pair.chosen.ids[: pair.chosen.first_scored].tolist()


def test_limits_beyond_the_models_positions_are_refused() -> None:
    check_limits(DataConfig(max_length=64), ComparisonConfig(max_new_tokens=63), 64)
    check_limits(DataConfig(max_length=64), ComparisonConfig(max_new_tokens=99), None)
    with pytest.raises(ConfigError, match="max_length is 65, but the model knows 64 positions"):
        check_limits(DataConfig(max_length=65), ComparisonConfig(max_new_tokens=8), 64)
    with pytest.raises(ConfigError, match="max_new_tokens is 64, but the model knows 64 positions"):
        check_limits(DataConfig(max_length=64), ComparisonConfig(max_new_tokens=64), 64)
