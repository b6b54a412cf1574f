"""What MinHash finds is what comparing everything with everything finds."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_data import SHARED

from tiltlm.config import DataConfig, HubConfig
from tiltlm.data.conversion import load_examples
from tiltlm.data.quality import near_prompts as near_module
from tiltlm.data.quality import shingles as shingles_module
from tiltlm.data.quality.near_prompts import ALIKE, Near, near_prompts
from tiltlm.data.quality.parts import one_text
from tiltlm.data.quality.shingles import COMMON, COMMON_AT_LEAST, LENGTH, Shingler, jaccard

WORDS = [f"{a}{b}{c}" for a in ("stone", "river", "ka", "m") for b in ("light", "o", "wind", "er") for c in "aeiou"]


def pieces(text: str) -> set[str]:
    """The pieces of a text, as the definition has them."""
    read = " ".join(text.lower().split()).ljust(LENGTH, "\0")
    return {read[start : start + LENGTH] for start in range(len(read) - LENGTH + 1)}


def by_definition(held_out: Sequence[str], train: Sequence[str]) -> dict[tuple[int, int], float]:
    """The similarity of every held-out prompt with every training prompt."""
    texts = [*held_out, *train]
    having = Counter(piece for text in texts for piece in pieces(text))
    common = {piece for piece, many in having.items() if many > COMMON * len(texts) and many >= COMMON_AT_LEAST}
    sets = [pieces(text) - common for text in texts]
    similar = {}
    for number, own in enumerate(sets[: len(held_out)]):
        for other, theirs in enumerate(sets[len(held_out) :]):
            either = len(own | theirs)
            similar[number, other] = len(own & theirs) / either if either else 0.0
    return similar


def changed(words: Sequence[str], times: int, rng: random.Random) -> str:
    new = list(words)
    for _ in range(times):
        new[rng.randrange(len(new))] = rng.choice(WORDS)
    return " ".join(new)


def texts_like_each_other(seed: int) -> tuple[list[str], list[str]]:
    """Held-out texts of which some are training texts with 0 to 12 words changed, among many of their own."""
    rng = random.Random(seed)
    originals = [[rng.choice(WORDS) for _ in range(rng.randint(3, 60))] for _ in range(60)]
    train = [" ".join(words) for words in originals] + [changed(words, 1, rng) for words in originals[:20]]
    held_out = [changed(words, number % 13, rng) for number, words in enumerate(originals)]
    rng.shuffle(train)
    return held_out, train


def check(held_out: list[str], train: list[str]) -> list[Near]:
    found = near_prompts(held_out, train)
    similar = by_definition(held_out, train)
    assert len({near.held_out for near in found}) == len(found)
    for near in found:
        assert near.similarity == similar[near.held_out, near.train] >= ALIKE
    alike = {number for (number, _), similarity in similar.items() if similarity >= ALIKE}
    missed = alike - {near.held_out for near in found}
    # At 0.8 one in six hundred is missed; what is clearly alike never is.
    assert all(similarity < 0.85 for (number, _), similarity in similar.items() if number in missed)
    assert len(missed) <= 0.02 * len(alike)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_minhash_finds_what_comparing_all_with_all_finds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    held_out, train = texts_like_each_other(seed)
    found = check(held_out, train)
    assert 5 < len(found) < len(held_out)
    # In portions of any size, the same.
    monkeypatch.setattr(near_module, "_CHARACTERS_AT_ONCE", 2000)
    monkeypatch.setattr(near_module, "_COMPARED_AT_ONCE", 3)
    assert near_prompts(held_out, train) == found


short = st.lists(st.sampled_from(["is", "it", "cold", "Cold", "日本", "\n", "é\ud800", "?"]), max_size=6).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(short, max_size=6), st.lists(short, max_size=6))
def test_any_texts_are_compared_as_defined(held_out: list[str], train: list[str]) -> None:
    similar = by_definition(held_out, train)
    for near in near_prompts(held_out, train):
        assert near.similarity == similar[near.held_out, near.train] >= ALIKE
    same = {number for (number, _), similarity in similar.items() if similarity == 1}
    # Of the same pieces sketches are the same, and so are all their bands.
    assert same <= {near.held_out for near in near_prompts(held_out, train)}


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_the_similarity_is_that_of_the_sets_of_pieces(first: str, second: str) -> None:
    cut = Shingler([])
    sets = pieces(first), pieces(second)
    assert [len(cut.pieces(text)) for text in (first, second)] == [len(one) for one in sets]
    assert jaccard(cut.pieces(first), cut.pieces(second)) == len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_a_template_makes_no_prompts_alike() -> None:
    template = "Below is an instruction that describes a task. Write a response that completes it. ### Instruction: "
    questions = [f"{WORDS[n]} {WORDS[n + 37]} {WORDS[(5 * n) % 80]}?" for n in range(40)]
    asked = [template + question for question in questions]
    assert near_prompts(asked[:10], asked[10:]) == []
    (near,) = near_prompts([*asked[:10], asked[10].upper() + "  "], asked[10:])
    assert near == Near(10, 0, 1.0)
    assert len(pieces(asked[0]) & pieces(asked[11])) / len(pieces(asked[0]) | pieces(asked[11])) > 0.6


def test_what_is_common_is_told_by_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shingles_module, "SAMPLED", 50)
    texts = [f"Answer this: {WORDS[n % 80]}{n * 7919 % 1000}" for n in range(400)]
    assert len(Shingler(texts).pieces("answer this: ")) == 0
    assert len(Shingler(texts).pieces("another task: ")) > 5


def test_where_all_are_alike_the_work_stays_bounded() -> None:
    texts = [f"the same long question about rivers and stones and winds {n}" for n in range(3000)]
    # Beside others, so that what they share is no template.
    others = [" ".join(random.Random(n).choices(WORDS, k=12)) for n in range(12_000)]
    found = near_prompts(texts[:1000], [*texts[1000:], *others])
    assert len(found) == 1000
    assert near_prompts([], texts) == near_prompts(texts, []) == []


@pytest.mark.shared_data
def test_what_is_alike_in_data_of_others_is_found() -> None:
    loaded = load_examples(SHARED / "polite-rude.json", DataConfig(), HubConfig(), "train")
    prompts = sorted({one_text(example.prompt) for example in loaded.examples})
    assert len(check(prompts[::3], [prompt for number, prompt in enumerate(prompts) if number % 3])) > 5
