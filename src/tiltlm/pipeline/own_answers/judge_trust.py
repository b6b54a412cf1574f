"""A judge that is judged itself, on preference pairs from anywhere that training reads them from."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from pathlib import Path

from tiltlm import demo
from tiltlm.config import DataConfig, HubConfig
from tiltlm.data.conversion import Called, load_examples
from tiltlm.data.preparation import DEMO
from tiltlm.errors import ConfigError, JudgeError
from tiltlm.judges.labels import Labels
from tiltlm.judges.trust import JudgedPair, Trust, judged_pairs, trust
from tiltlm.pipeline.own_answers.judging import AnyJudge, judge_facts
from tiltlm.pipeline.reporter import Reporter

SEED = 0
"""Draws the pairs, where fewer are wanted than there are."""


@dataclass(frozen=True, slots=True)
class LabelledPairs:
    """Where pairs with labels are read from. limit: at most so many, drawn by a fixed seed; None: all."""

    source: str
    split: str = DataConfig.train_split
    subset: str | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class TrustRecord:
    """What a judge is worth, and on what. pairs: every pair that it judged, with what it said.

    dropped: rows that are no pairs that can be used, by reason. read: how many pairs there were.
    """

    judge: dict[str, object]
    source: str
    format: str
    read: int
    dropped: dict[str, int]
    trust: Trust
    remarks: list[str]
    requests: dict[str, object] | None
    pairs: list[JudgedPair]


def judge_judge(pairs: LabelledPairs, judge: AnyJudge, hub: HubConfig, reporter: Reporter) -> TrustRecord:
    """Has a judge judge pairs whose better answer is known.

    Raises:
        DataError: there are no pairs that can be used.
        ConfigError: an option has no effect on these data, or `limit` is below 1.
        JudgeError: the judge cannot go on, or could not judge a single pair.
    """
    if pairs.limit is not None and pairs.limit < 1:
        raise ConfigError(f"--limit must be at least 1, not {pairs.limit}.")
    path = str(demo.TRAIN) if pairs.source == DEMO else pairs.source
    data = DataConfig(train=path, train_split=pairs.split, subset=pairs.subset)
    loaded = load_examples(path, data, hub, "train", called=Called("--pairs"))
    examples = list(loaded.examples)
    if pairs.limit is not None and pairs.limit < len(examples):
        drawn = sorted(random.Random(SEED).sample(range(len(examples)), pairs.limit))
        examples = [examples[number] for number in drawn]
    reporter.say(
        f"{loaded.source.rows} rows of {pairs.source}, read as `{loaded.source.format}`: {len(loaded.examples)} pairs, "
        f"{len(loaded.dropped)} rows dropped" + (f"; {len(examples)} drawn" if pairs.limit is not None else "") + "."
    )
    for note in loaded.notes:
        reporter.say(f"note: {note}")
    with reporter.progress("judging", len(examples), "pairs") as advance:
        judged = judged_pairs(judge, examples, advance)
    found = trust(judged)
    if found.agreement is None:
        raise JudgeError(f"the judge `{judge.name}` could not judge a single pair: {judged[0].why}.")
    facts, requests = judge_facts(judge), getattr(judge, "account", None)
    reasons: dict[str, int] = {}
    for drop in loaded.dropped:
        reasons[drop.reason] = reasons.get(drop.reason, 0) + 1
    return TrustRecord(
        judge={"name": facts.name, **facts.settings},
        source=pairs.source,
        format=loaded.source.format,
        read=len(loaded.examples),
        dropped=reasons,
        trust=found,
        remarks=judge.remarks([one.id for one in examples]) if isinstance(judge, Labels) else judge.remarks(),
        requests=None if requests is None else asdict(requests),
        pairs=judged,
    )


def writable_report(path: Path | None) -> Path | None:
    """The file of a report, with its home written out: found out before the work, not after it.

    Raises:
        ConfigError: it cannot be written.
    """
    if path is None:
        return None
    place = path.expanduser()
    if place.is_dir() or not place.parent.is_dir():
        why = "it is a folder" if place.is_dir() else f"there is no folder {place.parent}"
        raise ConfigError(f"--report {path} cannot be written: {why}.")
    return place
