"""Judged answers to a file of ranked lists: what can be learnt from, with the account of the rest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from tiltlm.answers.answer_file import to_line
from tiltlm.answers.answer_rows import AnswerRow
from tiltlm.answers.pair_choice import EQUAL, too_few, usable_answers
from tiltlm.answers.pair_file import REPORT, NoPairsError, require_judged
from tiltlm.storage.whole_files import written_whole


@dataclass(slots=True)
class ListAccount:
    """What became of judged answers. Each prompt is in `lists` or in `without_list`.

    listed: answers in lists. answers_left_out, without_list: how many, by reason. prompts_without: the ids of prompts
    without a list, by reason.
    """

    prompts: int = 0
    answers: int = 0
    lists: int = 0
    listed: int = 0
    answers_left_out: Counter[str] = field(default_factory=Counter)
    without_list: Counter[str] = field(default_factory=Counter)
    prompts_without: dict[str, list[str]] = field(default_factory=dict)


def write_lists(rows: Iterable[AnswerRow], output: Path, source: str) -> ListAccount:
    """Writes judged lines without the answers that are empty or have no reward, whole or not at all, and the account
    beside them. A prompt without two unlike rewards gives no list.

    source: what the answers are of, for messages and the account.

    Raises:
        DataError: an answer was never judged.
        NoPairsError: there is no list.
        OSError: a file cannot be written.
    """
    account, lines = ListAccount(), list[str]()
    for row in rows:
        require_judged(row, source)
        usable, lost = usable_answers(row)
        account.prompts += 1
        account.answers += len(row.answers)
        account.answers_left_out += lost
        alike = len({reward for _, _, reward in usable}) < 2
        if len(usable) < 2 or alike:
            why = too_few(lost) if len(usable) < 2 else EQUAL
            account.without_list[why] += 1
            account.prompts_without.setdefault(why, []).append(row.id)
            continue
        account.lists += 1
        account.listed += len(usable)
        # Comparisons name answers by places, which change.
        lines.append(to_line(replace(row, answers=tuple(answer for _, answer, _ in usable), compared=None)) + "\n")
    with written_whole(output) as unfinished:
        unfinished.write_text("".join(lines), encoding="utf-8", newline="\n")
    told = {"source": source, **{part.name: getattr(account, part.name) for part in fields(account)}}
    with written_whole(output.with_name(output.name + REPORT)) as unfinished:
        unfinished.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if not account.lists:
        raise NoPairsError(f"{source}: none of its {account.prompts} prompts has two answers of unlike reward.")
    return account
