"""`tiltlm pair`: pairs out of judged answers, for training."""

from __future__ import annotations

from collections.abc import Mapping

from tiltlm.answers.answer_file import answers_in
from tiltlm.answers.pair_choice import Choosing
from tiltlm.answers.pair_file import REPORT, PairAccount, write_pairs
from tiltlm.cli.pair_arguments import Pair
from tiltlm.errors import ConfigError
from tiltlm.text.visible import visible

LISTED = 5
"""Prompts without a pair that are named; all of them are in the account beside the pairs."""


def pair(arguments: Pair) -> PairAccount:
    """Writes the pairs, and prints what became of the rest.

    Raises:
        ConfigError: an option is impossible or has no effect, or the output is in the way.
        DataError: the answers cannot be read or were not judged, or there is no pair.
    """
    choosing = Choosing(arguments.choose, arguments.least_gap, arguments.most_pairs, arguments.longest_ratio)
    judged, output = arguments.judged.expanduser(), arguments.output.expanduser()
    if output.exists() and judged.exists() and output.samefile(judged):
        raise ConfigError(f"--output {output} is the file of answers itself: name another.")
    account = write_pairs(answers_in(judged), choosing, output, str(judged), arguments.overwrite)
    for line in account_lines(account, choosing):
        print(visible(line), flush=True)
    print(visible(f"Wrote {output} and {output.name}{REPORT}. Next: tiltlm train --data.train {output}"))
    return account


def account_lines(account: PairAccount, choosing: Choosing) -> list[str]:
    """The account in words."""
    lines = [
        f"{account.prompts:,} prompts with {account.answers:,} answers: {account.pairs:,} pairs ({choosing.choose}) of "
        f"{account.with_pairs:,} prompts"
    ]
    if account.mean_gap is not None:
        lengths = ""
        if account.chosen_tokens is not None and account.rejected_tokens is not None:
            lengths = f"; tokens {account.chosen_tokens:.1f} chosen, {account.rejected_tokens:.1f} rejected"
        lines.append(f"  rewards are {account.mean_gap:.4g} apart on average{lengths}")
    if any(account.unended.values()):
        lines.append(
            f"  {account.unended['chosen']:,} chosen and {account.unended['rejected']:,} rejected answers were cut "
            "before they ended: training learns no end from them"
        )
    lines += _counts("answers left out", account.answers_left_out)
    lines += _counts("combinations left out", account.left_out)
    lines += _counts("prompts without a pair", account.without_pairs)
    for reason, ids in account.prompts_without.items():
        more = f" and {len(ids) - LISTED:,} more" if len(ids) > LISTED else ""
        lines.append(f"    {reason}: {', '.join(ids[:LISTED])}{more}")
    return lines


def _counts(what: str, counts: Mapping[str, int]) -> list[str]:
    if not counts:
        return []
    ordered = sorted(counts.items(), key=lambda one: -one[1])
    return [f"  {sum(counts.values()):,} {what}: {', '.join(f'{reason} {count:,}' for reason, count in ordered)}"]
