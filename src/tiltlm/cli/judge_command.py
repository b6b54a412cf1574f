"""`tiltlm judge`: answers in a file are judged, or the judge itself is, by labelled pairs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from tiltlm.cli.command_line import parse_simple
from tiltlm.cli.imports import importing
from tiltlm.cli.judge_arguments import Judge
from tiltlm.config import HubConfig
from tiltlm.config.judge_words import judge_word
from tiltlm.errors import ConfigError

if TYPE_CHECKING:
    from tiltlm.judges.choosing import JudgeOptions
    from tiltlm.judges.trust import Trust
    from tiltlm.pipeline.own_answers.judge_trust import TrustRecord
    from tiltlm.pipeline.own_answers.judging import JudgingAccount
    from tiltlm.pipeline.reporter import Reporter
    from tiltlm.runs.estimates import Estimate

_OF_PAIRS = ("split", "subset", "limit")


def run_judge(words: Sequence[str]) -> int:
    """Does what the words behind `tiltlm judge` say; returns the exit code.

    Raises:
        ConfigError: a word is not understood, is missing, or has no effect.
        TiltlmError: the answers, the pairs or the judge cannot be had, or the judge cannot go on.
    """
    if not words:
        raise ConfigError(
            "name the answers, the judge and where to write: tiltlm judge ANSWERS.jsonl --judge WORD --output "
            "JUDGED.jsonl; or judge the judge: tiltlm judge --pairs DATA --judge WORD."
        )
    hints = {name: kind for name, kind in get_type_hints(Judge).items() if name != "answers"}
    arguments = parse_simple(Judge, words, hints, positional=1)
    word = _checked(arguments)
    with importing():
        from tiltlm.cli.console import ConsoleReporter
        from tiltlm.judges.choosing import chosen_judge
        from tiltlm.pipeline.own_answers.judge_trust import LabelledPairs, judge_judge, writable_report
        from tiltlm.pipeline.own_answers.judging import judge_answers

    report = writable_report(arguments.report)
    hub = HubConfig(folder=arguments.hub_folder)
    judge, reporter = chosen_judge(word, _options(arguments, hub)), ConsoleReporter()
    if (describes := getattr(judge, "describes", None)) is not None:
        reporter.say(f"The reward is {describes}.")
    if arguments.pairs is not None:
        given = {name: value for name in _OF_PAIRS if (value := getattr(arguments, name)) is not None}
        record = judge_judge(LabelledPairs(arguments.pairs, **given), judge, hub, reporter)
        _say_trust(record, reporter)
        _write(record, report, reporter)
        return 0
    assert arguments.answers is not None and arguments.output is not None
    account = judge_answers(arguments.answers.expanduser(), arguments.output.expanduser(), judge, reporter)
    _say_account(account, arguments.output, reporter)
    _write(account, report, reporter)
    return 0


def _checked(arguments: Judge) -> str:
    """The judge's word, once everything that belongs to the work is there, and nothing else."""
    if arguments.judge is None:
        raise ConfigError("say who judges: --judge WORD. docs/judges.md has the words.")
    named = judge_word(arguments.judge)
    if arguments.pairs is not None:
        for what, given in (("answers", arguments.answers), ("--output", arguments.output)):
            if given is not None:
                raise ConfigError(f"{what} ({given}) have no place beside --pairs: leave one of them out.")
        return named.word
    if arguments.answers is None:
        raise ConfigError("name the answers, as the first word, or labelled pairs: --pairs DATA.")
    if arguments.output is None:
        raise ConfigError("say where the judged answers go: --output JUDGED.jsonl.")
    if unread := next((name for name in _OF_PAIRS if getattr(arguments, name) is not None), None):
        raise ConfigError(f"--{unread} has no effect without --pairs: leave it out.")
    return named.word


def _options(arguments: Judge, hub: HubConfig) -> JudgeOptions:
    from tiltlm.judges.choosing import JudgeOptions

    prices = (arguments.price_prompt, arguments.price_completion)
    if (prices[0] is None) != (prices[1] is None):
        raise ConfigError("--price-prompt and --price-completion belong together: give both, or none.")
    given: dict[str, Any] = {
        one.name: getattr(arguments, one.name)
        for one in dataclasses.fields(JudgeOptions)
        if one.name not in ("hub", "prices")
    }
    return JudgeOptions(hub=hub, prices=None if None in prices else prices, **given)  # type: ignore[arg-type]


def _say_account(account: JudgingAccount, output: Path, reporter: Reporter) -> None:
    judged = account.answers - account.failed
    reporter.say(f"{output}: {judged} of {account.answers} answers in {account.rows} rows have a reward.")
    if account.failed:
        reporter.say(f"look at: {account.failed} answers have none; `why` of each says the reason.")
    if account.failed_pairs:
        reporter.say(f"look at: {account.failed_pairs} comparisons failed; call again to have them made again.")
    if account.comparisons:
        reporter.say(
            f"Of {account.comparisons} pairs the two orders disagree on {account.disagreements}, "
            f"{account.for_first_place} of them in favour of what stood first."
        )
    for remark in account.remarks:
        reporter.say(remark)


def _say_trust(record: TrustRecord, reporter: Reporter) -> None:
    found = record.trust
    reporter.say(f"{record.judge['name']} on {found.pairs} pairs, {found.failed} of which it could not judge:")
    reporter.say(f"  agrees with the labels: {_share(found.agreement)}; {found.ties} ties, counted half")
    length = found.length
    reporter.say(f"  where the chosen answer is longer ({length.longer}): {_share(length.agreement_longer)}")
    reporter.say(f"  where it is shorter ({length.shorter}): {_share(length.agreement_shorter)}")
    reporter.say(
        f"  prefers the longer answer: {_share(length.judge_longer)}; the labels do: {_share(length.labels_longer)}"
    )
    _say_place(found, reporter)
    for remark in record.remarks:
        reporter.say(remark)


def _say_place(found: Trust, reporter: Reporter) -> None:
    if (place := found.position) is None:
        return
    reporter.say(f"  in both orders it says the same of {place.agreed} of {place.judged} pairs")
    if place.share_first is not None:
        reporter.say(f"  of the others in favour of what stands first ({place.first}): {_share(place.share_first)}")


def _share(estimate: Estimate | None) -> str:
    from tiltlm.report.wording import percent

    if estimate is None:
        return "there are none"
    if estimate.interval is None:
        return f"{percent(estimate.mean)} (of one prompt)"
    low, high = map(percent, estimate.interval)
    return f"{percent(estimate.mean)} (95% interval {low} to {high})"


def _write(record: TrustRecord | JudgingAccount, report: Path | None, reporter: Reporter) -> None:
    if report is None:
        return
    text = json.dumps(dataclasses.asdict(record), indent=1, ensure_ascii=False)
    report.write_text(text + "\n", "utf-8", "backslashreplace")
    reporter.say(f"The account is in {report}.")
