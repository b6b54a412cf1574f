"""What a judge is worth: how often it agrees with given labels, and whether it judges by place or by length instead.

Source: L. Zheng et al., arXiv 2306.05685, section 3.3 (position and length bias of judges) and 4.2 (agreement);
Y. Dubois et al., arXiv 2404.04475 (length). Intervals are over prompts: pairs of one prompt may depend on each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tiltlm.data.examples import Example
from tiltlm.errors import DataError
from tiltlm.judges.judge_interface import Advance, Asked, BothOrders, ComparingJudge, PointwiseJudge, asked_of
from tiltlm.judges.labels import Labels
from tiltlm.runs.estimates import Estimate
from tiltlm.statistics import clustered_share


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """A pair with a label, and what a judge said of it.

    prompt: in words; pairs of one prompt are not independent. longer: whether the chosen answer has more characters
    (True), fewer (False) or as many (None) as the rejected one. wins: of the chosen answer: 1, 0, or 0.5 a tie; None
    where the judge failed, and then `why` says so. favours_first_place: see `BothOrders`.
    """

    id: str
    prompt: str
    longer: bool | None
    wins: float | None
    why: str | None = None
    favours_first_place: bool | None = None
    both_orders: bool = False


@dataclass(frozen=True, slots=True)
class PositionBias:
    """What became of pairs that were judged in both orders.

    agreed: how many had the same verdict in both. first, second: of the others, how many were in favour of what stood
    in the first or the second place. share_first: first / (first + second), which is 0.5 for a judge without bias;
    None where both orders always agreed.
    """

    judged: int
    agreed: int
    first: int
    second: int
    share_first: Estimate | None


@dataclass(frozen=True, slots=True)
class LengthBias:
    """How a judge does where length and label agree, and where they do not; lengths in characters.

    agreement_longer, agreement_shorter: with labels, where the chosen answer is the longer or the shorter one.
    labels_longer, judge_longer: how often the labels, and the judge, prefer the longer answer (ties count half).
    excess: judge_longer - labels_longer, pair by pair. Pairs of answers of one length are left out of all of it.
    """

    longer: int
    shorter: int
    agreement_longer: Estimate | None
    agreement_shorter: Estimate | None
    labels_longer: Estimate | None
    judge_longer: Estimate | None
    excess: Estimate | None


@dataclass(frozen=True, slots=True)
class Trust:
    """What a judge is worth on pairs with labels.

    agreement: how often it prefers the chosen answer, ties counted half; None where it failed at every pair.
    """

    pairs: int
    failed: int
    ties: int
    agreement: Estimate | None
    length: LengthBias
    position: PositionBias | None


def trust(judged: Sequence[JudgedPair]) -> Trust:
    """The figures of judged pairs."""
    heard = [one for one in judged if one.wins is not None]
    orders = [one for one in heard if one.both_orders]
    return Trust(
        pairs=len(judged),
        failed=len(judged) - len(heard),
        ties=sum(one.wins == 0.5 for one in heard),
        agreement=_mean(heard, [_wins(one) for one in heard]),
        length=_length_bias([one for one in heard if one.longer is not None]),
        position=_position_bias(orders) if orders else None,
    )


def judged_pairs(
    judge: PointwiseJudge | ComparingJudge | Labels, examples: Sequence[Example], advance: Advance = lambda done: None
) -> list[JudgedPair]:
    """What a judge says of pairs. advance: called with how many more pairs are judged.

    A judge of single answers prefers the one with the larger number. People's labels name the chosen answer 0, the
    rejected one 1.

    Raises:
        TiltlmError: the judge cannot go on.
    """
    shown = [(asked_of(one.prompt, one.chosen), asked_of(one.prompt, one.rejected)) for one in examples]
    if isinstance(judge, Labels):
        found = [_of_people(judge, one.id) for one in examples]
        advance(len(found))
    elif isinstance(judge, ComparingJudge):
        return [
            _judged(example, pair, orders.verdict, orders.why, orders)
            for example, pair, orders in zip(examples, shown, judge.both_orders(shown, advance), strict=True)
        ]
    else:
        found = _by_numbers(judge, shown, advance)
    return [
        _judged(example, pair, wins, None if wins is not None else "nobody said anything of it")
        for example, pair, wins in zip(examples, shown, found, strict=True)
    ]


def _by_numbers(judge: PointwiseJudge, shown: Sequence[tuple[Asked, Asked]], advance: Advance) -> list[float | None]:
    """Wins of the first of each pair by the numbers that its answers have. Answers that are the same are asked once."""
    different = list(dict.fromkeys(one for pair in shown for one in pair))
    done = 0

    def told(more: int) -> None:
        nonlocal done
        before, done = done, done + more
        # Pairs, of which each has some answers of its own.
        advance(done * len(shown) // len(different) - before * len(shown) // len(different))

    reward = dict(zip(different, judge.rewards(different, told), strict=True))
    return [_compared(reward[first], reward[second]) for first, second in shown]


def _compared(first: float, second: float) -> float:
    return 0.5 if first == second else float(first > second)


def _of_people(labels: Labels, id: str) -> float | None:
    """What people said of the pair: of its two answers, or by numbers for both."""
    if preferred := labels.preferences(id, 2):
        if labels.rewards(id, 2) is not None:
            raise DataError(f"{labels.name}: the id `{id}` has both numbers and winners: give one of them.")
        wins = preferred[0].wins
        return 0.5 if wins == 0.5 else float(wins > 0.5)
    rewards = labels.rewards(id, 2)
    if rewards is None or rewards[0] is None or rewards[1] is None:
        return None
    return _compared(rewards[0], rewards[1])


def _judged(
    example: Example,
    pair: tuple[Asked, Asked],
    wins: float | None,
    why: str | None = None,
    orders: BothOrders | None = None,
) -> JudgedPair:
    chosen, rejected = (len(one.answer.strip()) for one in pair)
    return JudgedPair(
        id=example.id,
        prompt=pair[0].prompt,
        longer=None if chosen == rejected else chosen > rejected,
        wins=wins,
        why=why,
        favours_first_place=None if orders is None else orders.favours_first_place,
        both_orders=orders is not None,
    )


def _length_bias(uneven: Sequence[JudgedPair]) -> LengthBias:
    longer, shorter = ([one for one in uneven if one.longer is kind] for kind in (True, False))
    by_labels = [float(one.longer is True) for one in uneven]
    by_judge = [_wins(one) if one.longer else 1.0 - _wins(one) for one in uneven]
    return LengthBias(
        longer=len(longer),
        shorter=len(shorter),
        agreement_longer=_mean(longer, [_wins(one) for one in longer]),
        agreement_shorter=_mean(shorter, [_wins(one) for one in shorter]),
        labels_longer=_mean(uneven, by_labels),
        judge_longer=_mean(uneven, by_judge),
        excess=_mean(uneven, [ours - theirs for ours, theirs in zip(by_judge, by_labels, strict=True)], share=False),
    )


def _position_bias(orders: Sequence[JudgedPair]) -> PositionBias:
    apart = [one for one in orders if one.favours_first_place is not None]
    first = sum(one.favours_first_place is True for one in apart)
    share = _mean(apart, [float(one.favours_first_place is True) for one in apart])
    return PositionBias(len(orders), len(orders) - len(apart), first, len(apart) - first, share)


def _wins(one: JudgedPair) -> float:
    assert one.wins is not None
    return one.wins


def _mean(pairs: Sequence[JudgedPair], values: Sequence[float], share: bool = True) -> Estimate | None:
    """The mean with its interval over prompts; None of nothing. share: whether values lie between 0 and 1, else
    between -1 and 1."""
    if not pairs:
        return None
    numbers: dict[str, int] = {}
    clusters = [numbers.setdefault(one.prompt, len(numbers)) for one in pairs]
    if share:
        return clustered_share(values, clusters)
    # A change of a share is one on another scale.
    found = clustered_share([(1 + value) / 2 for value in values], clusters)
    interval = None if found.interval is None else (2 * found.interval[0] - 1, 2 * found.interval[1] - 1)
    return Estimate(2 * found.mean - 1, interval, found.clusters)
