"""Judging files of answers, line by line, so that a command that was stopped goes on where it was."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean

from tiltlm.answers.answer_file import read_answers, to_line
from tiltlm.answers.answer_rows import AnswerRow, Compared, JudgeFacts, SampledAnswer
from tiltlm.answers.growing_file import AnswerAppender
from tiltlm.errors import ConfigError, JudgeError
from tiltlm.judges.judge_interface import Advance, BothOrders, ComparingJudge, PointwiseJudge, asked_of
from tiltlm.judges.labels import Labels
from tiltlm.pipeline.reporter import Reporter
from tiltlm.storage.whole_files import written_whole
from tiltlm.text.masking import masked, masked_values

AnyJudge = PointwiseJudge | ComparingJudge | Labels

CHUNK, CHUNK_OF_PAIRS = 256, 64
"""Judgements after which lines are written: a crash loses no more. Replies of language models are kept besides."""
_ALONE = "there is no other answer to compare it with"
_UNSAID = "nobody said anything of it"


@dataclass(slots=True)
class JudgingAccount:
    """What judging a file came to.

    rows, answers: in the file. done_before: rows that an earlier command judged. failed: answers without a reward, in
    all rows. failed_pairs: of those asked about now, the ones without a verdict in both orders. comparisons,
    disagreements, for_first_place: the pairs that were asked about now and have both verdicts, those on which the
    orders disagree, and those of them in favour of what stood in the first place.
    """

    judge: dict[str, object]
    rows: int
    answers: int
    done_before: int
    failed: int = 0
    failed_pairs: int = 0
    comparisons: int = 0
    disagreements: int = 0
    for_first_place: int = 0
    remarks: list[str] = field(default_factory=list)
    requests: dict[str, object] | None = None

    def see(self, row: AnswerRow) -> None:
        """Counts the failures of a row."""
        self.failed += sum(answer.reward is None for answer in row.answers)

    def see_orders(self, orders: BothOrders) -> None:
        """Counts a pair that was asked about."""
        if orders.verdict is None:
            self.failed_pairs += 1
            return
        self.comparisons += 1
        self.disagreements += orders.favours_first_place is not None
        self.for_first_place += orders.favours_first_place is True


def judge_answers(answers: Path, output: Path, judge: AnyJudge, reporter: Reporter) -> JudgingAccount:
    """Has a judge judge all answers of a file, and writes each line with the judgements to another one.

    What the output holds already is left, if it is of the same answers by the same judge. Rows with comparisons that
    failed are judged anew.

    Raises:
        DataError: a file cannot be read or written, or a line is not understood.
        ConfigError: the output is the file itself, or holds something else.
        JudgeError: the judge cannot go on, or could not judge a single answer.
    """
    if output.exists() and output.samefile(answers):
        raise ConfigError(f"--output {output} is the file of the answers itself: name another one.")
    rows = read_answers(answers)
    facts = judge_facts(judge)
    if earlier := sum(row.judge is not None or any(one.judged for one in row.answers) for row in rows):
        reporter.say(f"{earlier} of {len(rows)} rows have been judged before: {output} has this judge's word alone.")
    rows = [_unjudged(row) for row in rows]
    pairs = isinstance(judge, ComparingJudge)
    if pairs and output.exists():
        _take_out_failed(output, rows, facts, reporter)
    with AnswerAppender(output) as appender:
        _require_same(appender.rows, rows, facts, output)
        done = {row.id for row in appender.rows}
        account = JudgingAccount(
            {"name": facts.name, **facts.settings}, len(rows), sum(len(row.answers) for row in rows), len(done)
        )
        for row in appender.rows:
            account.see(row)
        left = [row for row in rows if row.id not in done]
        if done:
            reporter.say(f"{len(done)} of {len(rows)} rows are in {output} already.")
        total = sum(_judgements(row, pairs) for row in left)
        with reporter.progress("judging", total, "comparisons" if pairs else "answers") as advance:
            for chunk in _chunks(left, pairs):
                for row in _judged(chunk, judge, account, advance):
                    account.see(row)
                    appender.append(replace(row, judge=facts))
    account.remarks = judge.remarks([row.id for row in rows]) if isinstance(judge, Labels) else judge.remarks()
    if (requests := getattr(judge, "account", None)) is not None:
        account.requests = asdict(requests)
    if account.failed == account.answers:
        raise JudgeError(f"the judge `{judge.name}` could not judge a single answer: {_why(output)}")
    return account


def _take_out_failed(output: Path, rows: Sequence[AnswerRow], facts: JudgeFacts, reporter: Reporter) -> None:
    """Takes the rows of which some comparisons have no verdict out of a file that is gone on with; raises as
    `_require_same`."""
    with AnswerAppender(output) as appender:
        _require_same(appender.rows, rows, facts, output)
        kept = [row for row in appender.rows if len(row.compared or ()) == _judgements(row, pairs=True)]
        failed = len(appender.rows) - len(kept)
        if failed:
            with written_whole(output.resolve()) as unfinished:
                unfinished.write_bytes("".join(f"{to_line(row)}\n" for row in kept).encode())
    if failed:
        reporter.say(f"{failed} rows in {output} have comparisons that failed, and are judged anew.")


def _why(output: Path) -> str:
    """Why the first answer of a file has no reward."""
    answer = read_answers(output)[0].answers[0]
    return f"{answer.why} (so the first one in {output}; remove the file to judge anew)."


def judge_facts(judge: AnyJudge) -> JudgeFacts:
    """Who judges and what decides the judgements, without secrets, as they are when they are read from a file.

    Raises:
        TiltlmError: what the judge names cannot be had.
    """
    settings: dict[str, object] = json.loads(json.dumps(masked_values(judge.facts())))
    return JudgeFacts(masked(judge.name), settings)


def _unjudged(row: AnswerRow) -> AnswerRow:
    answers = tuple(replace(answer, reward=None, why=None) for answer in row.answers)
    return replace(row, answers=answers, judge=None, compared=None)


def _require_same(done: Sequence[AnswerRow], rows: Sequence[AnswerRow], facts: JudgeFacts, output: Path) -> None:
    """Refuses to go on with a file of other answers, or of another judge."""
    known = {row.id: row for row in rows}
    for row in done:
        if row.judge != facts:
            had = "no judge" if row.judge is None else f"`{row.judge.name}` with {dict(row.judge.settings)}"
            raise ConfigError(
                f"{output} was judged by {had}, and this is `{facts.name}` with {dict(facts.settings)}: name another "
                "--output, or remove the file."
            )
        if known.get(row.id) != _unjudged(row):
            what = "other answers than" if row.id in known else "no row in"
            raise ConfigError(
                f"{output} holds the row `{row.id}`, which has {what} the file to be judged: name another --output, or "
                "remove the file."
            )


def _judgements(row: AnswerRow, pairs: bool) -> int:
    """How many answers a row has, or pairs of them."""
    count = len(row.answers)
    return count * (count - 1) // 2 if pairs else count


def _chunks(rows: Sequence[AnswerRow], pairs: bool) -> Iterator[list[AnswerRow]]:
    chunk: list[AnswerRow] = []
    judgements = 0
    for row in rows:
        chunk.append(row)
        judgements += _judgements(row, pairs)
        if judgements >= (CHUNK_OF_PAIRS if pairs else CHUNK):
            yield chunk
            chunk, judgements = [], 0
    if chunk:
        yield chunk


def _judged(
    rows: Sequence[AnswerRow], judge: AnyJudge, account: JudgingAccount, advance: Advance
) -> Iterator[AnswerRow]:
    if isinstance(judge, Labels):
        for row in rows:
            yield _by_people(row, judge)
            advance(len(row.answers))
        return
    try:
        if isinstance(judge, ComparingJudge):
            yield from _compared(rows, judge, account, advance)
        else:
            yield from _by_numbers(rows, judge, advance)
    except JudgeError as error:
        raise JudgeError(f"{error} (among the rows {rows[0].id} to {rows[-1].id})") from error


def _by_numbers(rows: Sequence[AnswerRow], judge: PointwiseJudge, advance: Advance) -> Iterator[AnswerRow]:
    asked = [asked_of(row.prompt, answer.text) for row in rows for answer in row.answers]
    rewards = iter(judge.rewards(asked, advance))
    for row in rows:
        yield replace(row, answers=tuple(replace(answer, reward=next(rewards)) for answer in row.answers))


def _compared(
    rows: Sequence[AnswerRow], judge: ComparingJudge, account: JudgingAccount, advance: Advance
) -> Iterator[AnswerRow]:
    places = [list(combinations(range(len(row.answers)), 2)) for row in rows]
    asked = [
        (asked_of(row.prompt, row.answers[first].text), asked_of(row.prompt, row.answers[second].text))
        for row, own in zip(rows, places, strict=True)
        for first, second in own
    ]
    outcomes = iter(judge.both_orders(asked, advance))
    for row, own in zip(rows, places, strict=True):
        verdicts = list(itertools.islice(outcomes, len(own)))
        heard: list[Compared] = []
        why: dict[int, str | None] = {}
        for (first, second), orders in zip(own, verdicts, strict=True):
            if row.answers[first].text != row.answers[second].text:  # else a tie that nobody was asked about
                account.see_orders(orders)
            if orders.verdict is None:
                why[first] = why[second] = orders.why
            else:
                heard.append(Compared(first, second, orders.verdict))
        yield _by_wins(row, heard, why, _ALONE)


def _by_wins(row: AnswerRow, compared: Sequence[Compared], why: Mapping[int, str | None], alone: str) -> AnswerRow:
    """The row with the mean share of wins of each answer.

    why: of the answers with comparisons that failed: they get no reward, as a mean over other opponents than those of
    the other answers says nothing beside theirs. alone: why there is none where there was no comparison.
    """
    wins: list[list[float]] = [[] for _ in row.answers]
    for one in compared:
        wins[one.first].append(one.wins)
        wins[one.second].append(1.0 - one.wins)
    answers = [
        replace(answer, reward=fmean(own)) if own and place not in why else replace(answer, why=why.get(place) or alone)
        for place, (answer, own) in enumerate(zip(row.answers, wins, strict=True))
    ]
    return replace(row, answers=tuple(answers), compared=tuple(compared))


def _by_people(row: AnswerRow, labels: Labels) -> AnswerRow:
    count = len(row.answers)
    rewards, preferred = labels.rewards(row.id, count), labels.preferences(row.id, count)
    if rewards is not None and preferred:
        raise JudgeError(f"the labels have both numbers and winners for the row `{row.id}`: give one of them.")
    if preferred:
        compared = [Compared(one.first, one.second, one.wins) for one in preferred]
        return _by_wins(row, compared, {}, _UNSAID)
    given = rewards if rewards is not None else [None] * count
    answers: list[SampledAnswer] = [
        replace(answer, why=_UNSAID) if reward is None else replace(answer, reward=reward)
        for answer, reward in zip(row.answers, given, strict=True)
    ]
    return replace(row, answers=tuple(answers))
