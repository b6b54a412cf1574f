"""Each finding is provoked by data made for it, and counted to the row."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import ftfy
import numpy as np
import pytest
from ftfy.badness import is_bad
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import BOS, CHAT_TEMPLATE, EOS, byte_level

from tiltlm.config import Config, DataConfig
from tiltlm.data.examples import Example
from tiltlm.data.preparation import examine_data, read_data
from tiltlm.data.quality.damage import MOJIBAKE, Damage
from tiltlm.data.quality.findings import LISTED_ROWS, MANY, finding, share_of
from tiltlm.data.quality.histograms import MOST_BINS, bin_edges
from tiltlm.data.quality.lengths import TELLING, length_bias
from tiltlm.data.quality.parts import Part
from tiltlm.data.quality.truncation import MANY_CUT
from tiltlm.data.quality.writing_systems import NAMES, ScriptFinder
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.objectives.interface import Needs
from tiltlm.runs.data_account import DataFinding, DataReport, FoundRow, Quality, TokenHistogram

Rows = list[dict[str, Any]]
LABELLED = Needs(unit="completion")


def pair(prompt: Any, chosen: Any = " yes", rejected: Any = " no") -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def others(count: int) -> Rows:
    """Pairs in which nothing is found: prompts unlike each other, completions of one length."""
    rng = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [pair("".join(rng.choices(letters, k=12)) + ":", " yes", " no") for _ in range(count)]


def reported(
    rows: Rows, eval: Rows | None = None, needs: Needs | None = None, bos: bool = False, **data: Any
) -> DataReport:
    config = Config(data=DataConfig(**{"eval_fraction": 0.5, "max_length": 64, **data}))
    tokenizer = ExampleTokenizer(byte_level(bos=bos, chat_template=CHAT_TEMPLATE), config.data)
    read = read_data(config, needs or Needs(), rows, eval)
    return examine_data(read, tokenizer, lambda done: None)[0].report


def quality(rows: Rows, *given: Any, **settings: Any) -> Quality:
    found = reported(rows, *given, **settings).quality
    assert found is not None
    return found


def found(topic: str, quality: Quality) -> DataFinding:
    (one,) = [finding for finding in quality.findings if finding.topic == topic]
    assert (one.count > 0) == bool(one.rows) and (one.advice is None or one.count)
    return one


def ids(finding: DataFinding) -> list[tuple[str, ...]]:
    """The rows of a finding, by their numbers alone."""
    return [tuple(name.rpartition(" ")[2] for name in row.ids) for row in finding.rows]


def test_in_ordinary_data_nothing_is_found() -> None:
    clean = quality(others(40))
    assert [one.topic for one in clean.findings if one.count] == []
    assert not any(one.look or one.rows or one.advice for one in clean.findings)
    assert len({one.topic for one in clean.findings}) == len(clean.findings) == 8
    assert clean.special_tokens == clean.damage == {}


# Repeats and contradictions


def test_duplicate_pairs_are_counted_and_named() -> None:
    rows = [pair("P:"), pair("Q:"), pair("P:\n"), pair("P:"), pair("P:", " yes "), *others(30)]
    repeated = found("duplicate pairs", quality(rows))
    assert (repeated.count, repeated.of) == (2, 35) and repeated.look
    assert sorted(ids(repeated)) == [("3", "1"), ("4", "1")]
    assert repeated.sentence.startswith("2 of 35 pairs (5.7%) repeat an earlier one: same prompt, chosen and rejected")


def test_contradictory_pairs_are_counted_on_both_sides_and_named() -> None:
    turned = pair("P:", " no", " yes")
    rows = [pair("P:"), pair("P:"), turned, pair("Q:", " no", " yes"), pair("P:", " no", " maybe"), *others(30)]
    contradictory = found("contradictory pairs", quality(rows))
    assert contradictory.count == 3
    assert sorted(ids(contradictory)) == [("2", "3"), ("3", "1")]


def test_other_tools_make_another_prompt() -> None:
    question = [{"role": "user", "content": "P"}]
    chats = [pair(question, "a", "b") | {"tools": [{"name": f"tool {n}"}]} for n in range(3)]
    chats.append(chats[0] | {"chosen": "b", "rejected": "a", "tools": [{"name": "another"}]})
    one = quality(chats, max_length=256)
    assert found("duplicate pairs", one).count == found("contradictory pairs", one).count == 0
    again = quality([*chats, chats[2], chats[1] | {"chosen": "b", "rejected": "a"}], max_length=256)
    assert found("duplicate pairs", again).count == 1 and found("contradictory pairs", again).count == 2


def test_labelled_answers_contradict_where_one_has_both_labels() -> None:
    def labelled(prompt: str, completion: str, label: bool) -> dict[str, Any]:
        return {"prompt": prompt, "completion": completion, "label": label}

    rows = [
        *(labelled("P:", " a", True), labelled("P:", " a", True), labelled("P:", " a", False)),
        *(labelled("P:", " b", False), labelled("Q:", " b", True)),
        *(labelled(f"R{n}:", " yes", n % 2 == 0) for n in range(20)),
    ]
    one = quality(rows, needs=LABELLED)
    assert found("duplicate examples", one).count == 1 and ids(found("duplicate examples", one)) == [("2", "1")]
    assert "same prompt, completion and label" in found("duplicate examples", one).sentence
    contradictory = found("contradictory examples", one)
    assert contradictory.count == 3 and sorted(ids(contradictory)) == [("2", "3"), ("3", "1")]
    assert "gives the same answer the other label" in contradictory.sentence
    assert one.lengths is None


def test_pairs_for_an_objective_of_single_answers_contradict_by_answer() -> None:
    rows = [pair("P:", " a", " b"), pair("P:", " c", " a"), pair("P:", " a", " c"), *others(20)]
    contradictory = found("contradictory examples", quality(rows, needs=LABELLED))
    assert contradictory.count == 3
    assert found("contradictory pairs", quality(rows)).count == 2


# Both splits

LONG = "Which of the rivers of the north carries most water to the sea in the spring of a wet year, "


def test_prompts_in_both_splits_are_counted_and_what_is_like_them_is_found() -> None:
    eval = [pair(LONG + "then?"), pair("Q:"), *others(40)[20:]]
    rows = [pair("Q:\n"), pair("Q:", " maybe"), pair(LONG.upper() + " then!"), *others(20)]
    one = quality(rows, eval, max_length=200)
    both = found("prompts in both splits", one)
    assert both.count == 2 and ids(both) == [("1",), ("2",)] and not both.look
    assert both.sentence == "2 training pairs have a held-out prompt, and are not trained on."
    near = found("held-out prompts like training prompts", one)
    assert (near.count, near.of) == (1, 22) and ids(near) == [("1", "3")] and near.look
    assert near.rows[0].detail is not None and near.rows[0].detail.endswith("% alike")


def test_what_a_split_of_our_own_leaves_alike_is_found() -> None:
    rows = [pair(LONG + f"by measure {n}?", " yes", " not") for n in range(12)]
    near = found("held-out prompts like training prompts", quality([*rows, *others(60)], max_length=200))
    assert 0 < near.count < 12
    assert "prompts in both splits" not in {one.topic for one in quality(others(10)).findings}


def test_prompts_that_are_chats_on_one_side_alone_are_found_to_be_alike() -> None:
    report = reported(
        [pair(LONG + "then?"), *others(9)],
        [pair([{"role": "user", "content": LONG + "then?"}], "yes", "no")],
        max_length=200,
    )
    assert report.quality is not None and report.dropped.count == 0
    assert found("prompts in both splits", report.quality).count == 0
    assert found("held-out prompts like training prompts", report.quality).rows == (
        FoundRow(("row 1", "row 1"), "100% alike"),
    )
    assert any("training prompts that are held out, too, are not left out" in note for note in report.notes)


# Lengths


def part_of(split: str, lengths: Sequence[tuple[int, int]], prompts: Sequence[int]) -> Part:
    columns = TokenColumns.of(
        TokenizedExample.pair(
            f"{split}:{number}",
            TokenizedSequence(np.zeros(2 + chosen, np.int32), 2),
            TokenizedSequence(np.zeros(2 + rejected, np.int32), 2),
        )
        for number, (chosen, rejected) in enumerate(lengths)
    )
    examples = [Example.pair(f"{split}:{number}", f"P{p}", "a", "b") for number, p in enumerate(prompts)]
    return Part(split, examples, columns, np.array(prompts, dtype=np.uint64))


pairs_of_lengths = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(pairs_of_lengths, pairs_of_lengths)
def test_what_length_alone_finds_is_what_a_slow_count_finds(
    train: list[tuple[int, int, int]], held_out: list[tuple[int, int, int]]
) -> None:
    parts = [
        part_of(split, [one[:2] for one in given_], [one[2] for one in given_])
        for split, given_ in (("train", train), ("eval", held_out))
    ]
    bias, _ = length_bias(*parts)
    assert bias is not None
    longer = sum(chosen > rejected for chosen, rejected, _ in train)
    shorter = sum(chosen < rejected for chosen, rejected, _ in train)
    assert bias.prefers == ("longer" if longer >= shorter else "shorter")
    right = 0.0
    for chosen, rejected, _ in held_out:
        takes_chosen = chosen > rejected if bias.prefers == "longer" else chosen < rejected
        right += 0.5 if chosen == rejected else float(takes_chosen)
    assert bias.accuracy is not None and bias.accuracy.interval is not None
    assert bias.accuracy.mean == pytest.approx(right / len(held_out), abs=1e-12)
    low, high = bias.accuracy.interval
    assert 0 <= low <= bias.accuracy.mean + 1e-9 and bias.accuracy.mean <= high + 1e-9 <= 1 + 2e-9
    assert bias.train_equal == len(train) - longer - shorter
    if longer + shorter:
        assert bias.train_longer is not None and bias.train_longer.mean == pytest.approx(longer / (longer + shorter))
    else:
        assert bias.train_longer is None


def test_what_length_tells_is_looked_at_where_it_is_told_from_chance() -> None:
    train = part_of("train", [(3, 2)] * 30 + [(2, 3)] * 10 + [(2, 2)] * 5, range(45))
    told = part_of("eval", [(5, 2)] * 70 + [(2, 3)] * 30, range(100))
    bias, (one,) = length_bias(train, told)
    assert bias is not None and bias.accuracy is not None and bias.accuracy.mean == 0.7
    assert one.look and (one.count, one.of) == (30, 40) and one.advice is not None
    assert "in 75% (95% interval 60 to 86%) of training pairs (5 pairs of equal length aside)" in one.sentence
    assert "Taking the longer one, by length alone, is right in 70% (95% interval 60 to 78%) of" in one.sentence
    assert one.rows[0] == FoundRow(("eval:0",), "chosen 5 tokens, rejected 2")
    # Where all of them are of one prompt, they are worth one pair.
    _, (alike,) = length_bias(train, part_of("eval", [(5, 2)] * 70 + [(2, 3)] * 30, [0] * 100))
    assert not alike.look and "which is not shown to differ from chance" in alike.sentence and alike.advice is None
    # Told from chance, but less than what is worth a look.
    share = 0.55
    assert share < TELLING
    _, (little,) = length_bias(train, part_of("eval", [(5, 2)] * 2200 + [(2, 3)] * 1800, range(4000)))
    assert not little.look and "not shown" not in little.sentence and little.advice is not None
    _, (turned,) = length_bias(part_of("train", [(2, 9)], [0]), told)
    assert "Taking the shorter one, by length alone, is right in 30%" in turned.sentence and not turned.look


# Cuts


def test_many_cut_prompts_are_looked_at_with_the_length_that_would_do() -> None:
    rows = [pair(f"{chr(97 + n % 26)}{n // 26}" + " no" * (n + 1), " yes", " no") for n in range(40)]
    uncut = reported(rows, max_length=60)
    assert uncut.quality is not None and found("truncation", uncut.quality).count == 0
    assert found("truncation", uncut.quality).sentence == "No prompt and no completion is cut to fit."
    limit = 24
    one = quality(rows, max_length=limit)
    cut = found("truncation", one)
    prompts, *completions = one.truncation
    assert prompts.part == "prompt" and prompts.texts == 40 and [one.cut for one in completions] == [0, 0]
    # Two tokens of its own and one a word; one of the answer and one for the end.
    lost = [max(0, 2 + n + 1 + 2 - limit) for n in range(40)]
    assert prompts.tokens_cut == sum(lost) and prompts.most_cut == max(lost) == 20
    assert prompts.tokens == sum(n + 3 for n in range(40)) and prompts.cut == cut.count == np.count_nonzero(lost) == 20
    assert cut.look and cut.sentence.startswith(f"20 of 40 prompts (50%) lose {sum(lost)} tokens, ")
    assert cut.advice is not None
    assert cut.advice.endswith(
        "With data.max_length 44 (it is 24) none of those used would be cut, with 42 at most 5%."
    )
    assert cut.rows[0] == FoundRow(("row 40",), "prompt lost 20 of 42 tokens") and len(cut.rows) == 20
    for enough, many in ((44, 0), (42, 2)):
        assert quality(rows, max_length=enough).truncation[0].cut == many


def test_cut_completions_are_told_by_side() -> None:
    rows = [pair("Q:", " yes" * 30), *others(40)]
    one = quality(rows, max_length=22, long_completions="truncate")
    cut = found("truncation", one)
    assert [part.cut for part in one.truncation] == [0, 1, 0] and MANY_CUT > 1 / 41 and not cut.look
    assert cut.rows == (FoundRow(("row 1",), f"chosen completion lost {one.truncation[1].tokens_cut} of 31 tokens"),)
    assert cut.advice is not None and "have no end-of-sequence token" in cut.advice


# Marks


def test_special_tokens_within_texts_are_counted_by_token() -> None:
    chats = [
        pair([{"role": "user", "content": f"question {n}"}], {"role": "assistant", "content": "yes"}, "no")
        for n in range(30)
    ]
    chats[0]["prompt"][0]["content"] += f" {EOS} and {BOS}"
    chats[1]["rejected"] = f"no{EOS} more {EOS}"
    chats[2]["rejected"] = f"no {EOS}\n"
    one = quality(chats, bos=True)
    special = found("special tokens in text", one)
    assert special.count == 2 and one.special_tokens == {EOS: 2, BOS: 1} and special.look
    assert sorted(ids(special)) == [("1",), ("2",)]
    by_id = {row.ids[0]: row.detail for row in special.rows}
    assert by_id["row 1"] == f"{EOS} in prompt: question 0 {EOS} and {BOS}; {BOS} in prompt: ...ion 0 {EOS} and {BOS}"
    assert special.sentence.startswith("2 of 30 pairs (6.7%) hold special tokens in the text: ")


def test_prompts_that_are_written_with_marks_are_told_from_marks_by_accident() -> None:
    rows = [pair(f"{BOS}question {n}{EOS}answer:", " yes", f" no{EOS}") for n in range(10)]
    special = found("special tokens in text", quality(rows, bos=True))
    assert special.count == 10 and not special.look and "a chat template seems to be written there" in special.sentence
    rows[3]["chosen"] = f" yes {EOS} and no"
    assert found("special tokens in text", quality(rows, bos=True)).look


# Damage

DAMAGED = {
    MOJIBAKE: "I donâ€™t know",
    "replacement characters": "caf\ufffd",
    "NUL": "a\0b",
    "control characters": "a\x1b[31mb",
    "HTML entities": "x &lt; y",
}


@pytest.mark.parametrize("sign", DAMAGED)
def test_each_sign_of_damage_is_counted_and_shown(sign: str) -> None:
    rows = others(99)
    rows[7] = pair(DAMAGED[sign] + ":", " yes", " not")
    rows[8] = pair("quite another:", " yes", " " + DAMAGED[sign])
    one = quality([*rows, pair("« voilà » – “so”, 50 € & no more\f\r\n\t日本語:")])
    assert one.damage == {sign: 2}
    damaged = found("encoding damage", one)
    assert damaged.count == 2 and damaged.look == (sign != "HTML entities")
    assert sorted(ids(damaged)) == [("8",), ("9",)]
    details = sorted(str(row.detail) for row in damaged.rows)
    assert details[0].startswith(f"{sign} in prompt: ") and details[1].startswith(f"{sign} in rejected: ")
    if sign == MOJIBAKE:
        assert "(was it I don’t know" in details[0]


def damage_in(examples: list[Example]) -> tuple[dict[str, int], list[DataFinding]]:
    look = Damage()
    for example in examples:
        look.see(example)
    return look.found("pair")


def test_few_damaged_texts_are_found_and_not_looked_at() -> None:
    examples = [Example.pair(f"p:{n}", f"Q{n}", "a\ufffd" if n == 5 else "a", "b") for n in range(101)]
    _, (one,) = damage_in(examples)
    assert one.count == 1 and not one.look and MANY > 1 / 101


letters = st.text(st.sampled_from("aeé’ß “”—ñ°C日本Жд🙂\n"), min_size=1, max_size=20)


@settings(max_examples=300, deadline=None)
@given(letters, st.sampled_from(["latin-1", "cp1252", "cp1251", "macroman", "cp437", "utf-8"]))
def test_no_misread_text_is_passed_over_for_speed(text: str, encoding: str) -> None:
    misread = text.encode().decode(encoding, "replace")
    examples = [Example.pair("p:1", misread, "a", "b")]
    signs, _ = damage_in(examples)
    assert (MOJIBAKE in signs) == (is_bad(misread) and ftfy.fix_encoding(misread) != misread)


# Scripts


@pytest.mark.parametrize(
    ("text", "script"),
    [
        *(("plain", "Latin"), ("12 + 3 = 15 ✓ 🙂", "none"), ("", "none"), ("Größe", "Latin"), ("Ωmega", "Latin")),
        *(
            ("Привет, world of ours", "Latin"),
            ("Привет, Tom", "Cyrillic"),
            ("你好 ok", "Latin"),
            ("你好，世界 ok", "Han"),
        ),
        *(
            ("漢字とかな", "Japanese"),
            ("カタカナ", "Japanese"),
            ("漢字", "Han"),
            ("한국어", "Hangul"),
            ("नमस्ते", "Devanagari"),
        ),
        *(("مرحبا", "Arabic"), ("שלום", "Hebrew"), ("ᚠᚢᚦ", "Other"), ("γειά σου", "Greek"), ("\ud800ab", "Latin")),
    ],
)
def test_the_script_of_most_letters(text: str, script: str) -> None:
    finder = ScriptFinder()
    assert [NAMES[number] for number in finder(["Ж", text, "abc", text])] == ["Cyrillic", script, "Latin", script]


def test_completions_in_different_scripts_are_found() -> None:
    rows = [pair("P:", " да", " yes"), pair("Q:", " 5", " да"), pair("да:", " да", " нет"), *others(30)]
    one = quality(rows, max_length=64)
    differ = found("completions in different scripts", one)
    assert (
        differ.count == 1 and differ.look and differ.rows == (FoundRow(("row 1",), "chosen Cyrillic, rejected Latin"),)
    )
    assert [dataclasses.astuple(script) for script in one.scripts] == [
        ("Latin", 32, 61),
        ("Cyrillic", 1, 4),
        ("none", 0, 1),
    ]


# Histograms


@pytest.mark.parametrize("longest", [0, 1, 23, 24, 25, 100, 511, 512, 1199, 1200, 4096, 99_999])
def test_bins_are_few_whole_and_hold_every_length(longest: int) -> None:
    edges = bin_edges(longest)
    assert edges[0] == 0 and edges[-1] > longest and len(edges) - 1 <= MOST_BINS + 1
    (step,) = set(np.diff(edges).tolist())
    assert str(step).rstrip("0") in {"1", "2", "5"}


def test_histograms_count_every_text_of_both_splits() -> None:
    report = reported([*others(20), pair("a longer prompt than the others have:", " yes" * 9, " no")])
    assert report.quality is not None and report.quality.histograms is not None
    histograms = report.quality.histograms
    kinds = [(one.split, one.part) for one in histograms.histograms]
    assert kinds == [(split, part) for split in ("train", "eval") for part in ("prompt", "chosen", "rejected")]
    for split, pairs in (("train", report.train), ("eval", report.eval)):
        assert pairs is not None
        for one in histograms.histograms:
            if one.split == split:
                assert sum(one.counts) == pairs.pairs and len(one.counts) == len(histograms.edges) - 1
    longest = max(split.chosen_tokens.max for split in (report.train, report.eval) if split and split.chosen_tokens)
    assert longest == 10
    place = next(n for n in range(len(histograms.edges)) if histograms.edges[n + 1] > longest)
    assert sum(one.counts[place] for one in histograms.histograms if one.part == "chosen") == 1


def test_labelled_answers_have_histograms_of_the_labels_there_are() -> None:
    rows = [{"prompt": f"P{n}:", "completion": " yes", "label": True} for n in range(4)]
    found_ = quality(rows, needs=LABELLED).histograms
    assert found_ is not None
    assert {one.part for one in found_.histograms} == {"prompt", "chosen"}
    assert all(isinstance(one, TokenHistogram) for one in found_.histograms)


# All of them


def test_counts_are_exact_where_the_list_is_not_whole() -> None:
    rows = (FoundRow((f"p:{n}",)) for n in range(3 * LISTED_ROWS))
    one = finding("anything", 3 * LISTED_ROWS, 10**6, "Something.", rows, advice="Do.")
    assert one.count == 3 * LISTED_ROWS and len(one.rows) == LISTED_ROWS and one.look


@pytest.mark.parametrize(
    ("count", "of", "text"),
    [
        (0, 9, "0%"),
        (1, 10**6, "under 0.1%"),
        (1, 300, "0.3%"),
        (1, 8, "12%"),
        (9999, 10_000, "over 99.9%"),
        (7, 7, "100%"),
    ],
)
def test_shares_are_never_rounded_to_none_or_all(count: int, of: int, text: str) -> None:
    assert share_of(count, of) == text


def test_nothing_is_dropped_for_what_is_found() -> None:
    rows = [pair("P:"), pair("P:"), pair("P:", " no", " yes"), *(pair(text + ":") for text in DAMAGED.values())]
    rows += [pair(f"Q{EOS}:"), pair("R:", " да", " no")]
    report = reported(rows)
    assert report.train is not None and report.eval is not None
    assert report.dropped.count == 0 and report.train.pairs + report.eval.pairs == len(rows)
