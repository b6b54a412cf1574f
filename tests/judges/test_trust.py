"""A judge that is judged: figures worked by hand, and judges whose bias is known."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltlm.config.judge_words import judge_word
from tiltlm.data.examples import Example
from tiltlm.judges.judge_interface import Advance, Asked, BothOrders
from tiltlm.judges.labels import Labels
from tiltlm.judges.trust import JudgedPair, judged_pairs, trust
from tiltlm.runs.estimates import Estimate
from tiltlm.statistics import mean_share


class ByLength:
    """Prefers the longer answer."""

    name = "length"

    def facts(self) -> dict[str, object]:
        return {}

    def rewards(self, asked: Sequence[Asked], advance: Advance = lambda done: None) -> list[float]:
        advance(len(asked))
        return [float(len(one.answer)) for one in asked]

    def remarks(self) -> list[str]:
        return []


class ByPlace:
    """Prefers what stands first, but for some pairs, of which it knows the longer answer."""

    name = "place"

    def facts(self) -> dict[str, object]:
        return {}

    def both_orders(
        self, pairs: Sequence[tuple[Asked, Asked]], advance: Advance = lambda done: None
    ) -> list[BothOrders]:
        advance(len(pairs))
        found = []
        for first, second in pairs:
            longer = float(len(first.answer) > len(second.answer))
            known = {"place": (1.0, 0.0), "second": (0.0, 1.0), "fails": (None, 1.0)}
            found.append(
                BothOrders(
                    *known.get(first.prompt, (longer, longer)), first.prompt if first.prompt == "fails" else None
                )
            )
        return found

    def compare(self, pairs: Sequence[tuple[Asked, Asked]], advance: Advance = lambda done: None) -> list[float | None]:
        return [one.verdict for one in self.both_orders(pairs, advance)]

    def remarks(self) -> list[str]:
        return []


def mean(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.mean


def test_figures_by_hand() -> None:
    pairs = [
        # Chosen longer: agreed, tied. Chosen shorter: agreed, not, not. As long: agreed. One failed.
        JudgedPair("1", "p", True, 1.0),
        JudgedPair("2", "q", True, 0.5),
        JudgedPair("3", "r", False, 1.0),
        JudgedPair("4", "s", False, 0.0),
        JudgedPair("5", "t", False, 0.0),
        JudgedPair("6", "u", None, 1.0),
        JudgedPair("7", "v", True, None, "it broke"),
    ]
    found = trust(pairs)
    assert (found.pairs, found.failed, found.ties, found.position) == (7, 1, 1, None)
    assert mean(found.agreement) == pytest.approx(3.5 / 6)
    length = found.length
    assert (length.longer, length.shorter) == (2, 3)
    assert mean(length.agreement_longer) == pytest.approx(1.5 / 2)
    assert mean(length.agreement_shorter) == pytest.approx(1 / 3)
    assert mean(length.labels_longer) == pytest.approx(2 / 5)
    # The longer one: pair 1, half of 2, not in 3, in 4 and 5.
    assert mean(length.judge_longer) == pytest.approx(3.5 / 5)
    assert mean(length.excess) == pytest.approx(1.5 / 5)


def test_a_judge_by_length_is_seen() -> None:
    shuffled = random.Random(0)
    examples = []
    for number in range(200):
        short, long = "x" * shuffled.randint(1, 9), "x" * shuffled.randint(11, 20)
        chosen_longer = shuffled.random() < 0.6
        chosen, rejected = (long, short) if chosen_longer else (short, long)
        examples.append(Example.pair(str(number), f"prompt {number}", chosen, rejected))
    done: list[int] = []
    found = trust(judged_pairs(ByLength(), examples, done.append))
    assert sum(done) == 200
    length, chosen_longer_share = found.length, found.length.longer / 200
    assert mean(length.agreement_longer) == 1 and mean(length.agreement_shorter) == 0
    assert mean(length.judge_longer) == 1 and mean(length.labels_longer) == pytest.approx(chosen_longer_share)
    assert mean(found.agreement) == pytest.approx(chosen_longer_share)
    assert length.excess is not None and length.excess.interval is not None and length.excess.interval[0] > 0.2
    # Of pairs that are all alike no sample differs; the interval must say how few they are all the same.
    assert length.agreement_longer is not None and length.agreement_longer.interval is not None
    assert 0.9 < length.agreement_longer.interval[0] < 1


def test_a_judge_by_place_is_seen() -> None:
    prompts = ["place"] * 3 + ["second"] + ["fails"] + ["known"] * 5
    examples = [Example.pair(str(n), prompt, "longer one", f"short {n}") for n, prompt in enumerate(prompts)]
    judged = judged_pairs(ByPlace(), examples)
    assert [one.why for one in judged if one.wins is None] == ["fails"]
    found = trust(judged)
    assert found.failed == 1 and found.ties == 4 and mean(found.agreement) == pytest.approx((5 + 2) / 9)
    place = found.position
    assert place is not None
    assert (place.judged, place.agreed, place.first, place.second) == (9, 5, 3, 1)
    assert mean(place.share_first) == pytest.approx(3 / 4)


def test_the_interval_is_the_score_interval_of_shares() -> None:
    """A percentile bootstrap is too narrow where nearly all pairs are alike."""
    wins = [1.0] * 19 + [0.0]
    pairs = [JudgedPair(f"{n}.{k}", f"p{n}", True, one) for n, one in enumerate(wins) for k in range(3)]
    expected = mean_share(wins).interval
    for some in (pairs[::3], pairs):  # to repeat every pair tells nothing
        found = trust(some).agreement
        assert found is not None and expected is not None and found.interval == pytest.approx(expected)


def test_the_interval_is_over_prompts() -> None:
    """A hundred pairs of two prompts are worth two."""
    pairs = [JudgedPair(str(n), f"p{n % 2}", True, float(n % 2)) for n in range(100)]
    one = trust(pairs).agreement
    assert one is not None and one.clusters == 2 and one.interval is not None
    assert one.interval[0] < 0.01 and one.interval[1] > 0.99
    alike = trust([JudgedPair(str(n), f"p{n % 2}", True, 1.0) for n in range(100)]).agreement
    assert alike is not None and alike.interval is not None and alike.interval[0] < 0.4


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, None]), st.sampled_from([True, False, None])), max_size=20))
def test_counts_add_up_and_shares_lie_between_0_and_1(pairs: list[tuple[float | None, bool | None]]) -> None:
    found = trust([JudgedPair(str(n), str(n), longer, wins) for n, (wins, longer) in enumerate(pairs)])
    assert found.pairs == len(pairs) and found.failed == sum(wins is None for wins, _ in pairs)
    assert (found.agreement is None) == (found.failed == found.pairs)
    for one in (found.agreement, found.length.agreement_longer, found.length.judge_longer):
        if one is not None:
            low, high = one.interval or (0.0, 1.0)
            assert 0 <= low <= one.mean + 1e-9 and one.mean <= high + 1e-9 and high <= 1


def test_what_is_the_same_is_a_tie_and_asked_once() -> None:
    asked: list[Asked] = []

    class Counting(ByLength):
        def rewards(self, these: Sequence[Asked], advance: Advance = lambda done: None) -> list[float]:
            asked.extend(these)
            return super().rewards(these, advance)

    examples = [Example.pair("1", "p", "one", "two"), Example.pair("2", "p", "one", "three")]
    assert [one.wins for one in judged_pairs(Counting(), examples)] == [0.5, 0.0]
    assert [one.answer for one in asked] == ["one", "two", "three"]


def test_people_are_judged_by_labels_too(tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    rows = [
        {"id": "1", "first": 0, "second": 1, "winner": 0},
        {"id": "2", "rewards": [1, 3]},
        {"id": "3", "first": 1, "second": 0, "winner": "tie"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    examples = [Example.pair(str(n), f"p{n}", "a", "bb") for n in range(1, 5)]
    judged = judged_pairs(Labels(judge_word(f"labels:{path}")), examples)
    assert [one.wins for one in judged] == [1.0, 0.0, 0.5, None]
    assert judged[-1].why == "nobody said anything of it"
