"""Judged answers to a file of pairs, with the account of what became of every answer and prompt."""

from __future__ import annotations

import filecmp
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from tiltlm.answers.answer_file import json_line, prompt_value
from tiltlm.answers.answer_rows import AnswerRow
from tiltlm.answers.pair_choice import Choosing, ChosenPair, choose_pairs
from tiltlm.errors import ConfigError, DataError
from tiltlm.storage.whole_files import written_whole

REPORT = ".report.json"
"""What is put behind a file's name to name its account."""


class NoPairsError(DataError):
    """There is nothing to learn from: no two answers to one prompt make a pair."""


@dataclass(slots=True)
class PairAccount:
    """What became of judged answers. Each prompt is in `with_pairs` or in `without_pairs`, each two answers that are
    left of a prompt in `pairs` or in `left_out`.

    answers_left_out, left_out, without_pairs: how many, by reason. prompts_without: the ids of prompts without a pair,
    by reason. unended: how many chosen and rejected answers did not end by themselves. mean_gap: of the rewards of a
    pair. chosen_tokens, rejected_tokens: means; None where the file does not say.
    """

    prompts: int = 0
    answers: int = 0
    pairs: int = 0
    with_pairs: int = 0
    without_pairs: Counter[str] = field(default_factory=Counter)
    answers_left_out: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    unended: dict[str, int] = field(default_factory=lambda: {"chosen": 0, "rejected": 0})
    mean_gap: float | None = None
    chosen_tokens: float | None = None
    rejected_tokens: float | None = None
    prompts_without: dict[str, list[str]] = field(default_factory=dict)


def write_pairs(
    rows: Iterable[AnswerRow], choosing: Choosing, output: Path, source: str, overwrite: bool = False
) -> PairAccount:
    """Writes the pairs of judged answers, whole or not at all, and the account beside them.

    The same answers and settings always give the same bytes, so a file that has them already is left as it is.

    Args:
        source: what the answers are of, for messages and the account.

    Raises:
        DataError: an answer was never judged, or there is no pair.
        ConfigError: the file has something else, and is not to be replaced.
        OSError: a file cannot be written.
    """
    account = PairAccount()
    if output.is_dir():
        raise ConfigError(f"--output {output} is a folder: name a file.")
    if not output.parent.is_dir():
        raise ConfigError(f"--output {output} cannot be written: there is no folder {output.parent}.")
    with written_whole(output) as unfinished:
        with unfinished.open("w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(f"{line}\n" for line in _lines(rows, choosing, source, account))
        if account.pairs and output.exists() and not overwrite and not filecmp.cmp(output, unfinished, shallow=False):
            raise ConfigError(f"--output {output} is there, with other pairs: name another file, or say --overwrite.")
        _write_account(account, choosing, source, output.with_name(output.name + REPORT))
        if not account.pairs:
            raise NoPairsError(
                f"{source}: there is no pair in its {account.prompts} prompts ({_words(account.without_pairs)})."
            )
    return account


def _write_account(account: PairAccount, choosing: Choosing, source: str, place: Path) -> None:
    told = {part.name: getattr(account, part.name) for part in fields(account)}
    record = {"source": source, "choosing": asdict(choosing), **told}
    with written_whole(place) as unfinished:
        unfinished.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _lines(rows: Iterable[AnswerRow], choosing: Choosing, source: str, account: PairAccount) -> Iterator[str]:
    gaps, tokens = 0.0, {"chosen": 0, "rejected": 0}
    told = True
    for row in rows:
        require_judged(row, source)
        choice = choose_pairs(row, choosing)
        account.prompts += 1
        account.answers += len(row.answers)
        account.answers_left_out += choice.answers
        account.left_out += choice.left_out
        if choice.why is not None:
            account.without_pairs[choice.why] += 1
            account.prompts_without.setdefault(choice.why, []).append(row.id)
            continue
        account.with_pairs += 1
        for pair in choice.pairs:
            account.pairs += 1
            gaps += pair.gap
            for side, place in (("chosen", pair.better), ("rejected", pair.worse)):
                answer = row.answers[place]
                account.unended[side] += answer.ended is False
                told = told and answer.tokens is not None
                tokens[side] += answer.tokens or 0
            yield pair_line(row, pair)
    if account.pairs:
        account.mean_gap = gaps / account.pairs
        if told:
            account.chosen_tokens, account.rejected_tokens = (n / account.pairs for n in tokens.values())


def pair_line(row: AnswerRow, pair: ChosenPair) -> str:
    """The line of a pair, without its end: a row of data.format `chat` or `preference`.

    Raises:
        DataError: a text holds half a character.
    """
    line: dict[str, object] = {"id": f"{row.id}#{pair.better + 1}>{pair.worse + 1}", "prompt": prompt_value(row.prompt)}
    if row.tools is not None:
        line["tools"] = json.loads(row.tools)
    sides = {"chosen": row.answers[pair.better], "rejected": row.answers[pair.worse]}
    for side, answer in sides.items():
        text = answer.text
        line[side] = text if isinstance(row.prompt, str) else [{"role": "assistant", "content": text}]
    if pair.gap > 0:  # else the rewards would say the opposite of the comparison that the pair is of
        line |= {f"{side}_score": answer.reward for side, answer in sides.items()}
    # What is not said of an answer's end is left open, and taken as an end.
    line |= {f"{side}_ended": answer.ended for side, answer in sides.items() if answer.ended is not None}
    return json_line(line, row.id)


def require_judged(row: AnswerRow, source: str) -> None:
    place = next((place for place, answer in enumerate(row.answers) if not answer.judged), None)
    if place is not None:
        raise DataError(
            f"{source}: answer {place} of `{row.id}` has no `reward`: have the answers judged first (tiltlm judge)."
        )


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in counts.most_common())
