"""The start-up checks pass on a sound start and stop an unsound one with an explanation."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tiltlm.records import ReferencedPair
from tiny_runs import pairs, referenced, tiny_model, trainer
from tiny_tokenizers import byte_level

from tiltlm.config import DataConfig, LossConfig, TrainingConfig
from tiltlm.data.tokens.token_columns import TokenizedExample, TokenizedSequence
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.errors import SelfCheckError
from tiltlm.model.head import LogitTransform
from tiltlm.model.scorer import PairScorer
from tiltlm.runs.outcomes import Check
from tiltlm.training import checks as checks_module
from tiltlm.training.checks import run_checks


@pytest.fixture
def tokenizer() -> ExampleTokenizer:
    return ExampleTokenizer(byte_level(), DataConfig(), terminators=frozenset({2}))


def check(
    tmp_path: Path,
    tokenizer: ExampleTokenizer,
    edit: object = None,
    loss: LossConfig | None = None,
    precision: torch.dtype = torch.float32,
) -> tuple[list[Check], PairScorer]:
    scorer = PairScorer(tiny_model())
    items = referenced(scorer, pairs(5), tmp_path)
    if callable(edit):
        items = edit(scorer, items)
    made = dataclasses.replace(trainer(scorer, TrainingConfig(), loss), precision=precision)
    return run_checks(made, items, tokenizer), scorer


def test_a_sound_start(tmp_path: Path, tokenizer: ExampleTokenizer) -> None:
    checks, _ = check(tmp_path, tokenizer)
    assert [one.name for one in checks] == ["one BOS", "EOS", "fast path equals slow path", "first loss is ln 2"]
    assert all(one.passed for one in checks)
    assert "0.69314" in checks[-1].detail
    checks, _ = check(tmp_path, tokenizer, loss=LossConfig(name="ipo", beta=0.5))
    assert checks[-1].name == "first loss is 1.0000"


def test_a_reference_that_is_not_the_policy(tmp_path: Path, tokenizer: ExampleTokenizer) -> None:
    def edit(_: PairScorer, items: list[ReferencedPair]) -> list[ReferencedPair]:
        return [dataclasses.replace(item, chosen_logp=item.chosen_logp - 1) for item in items]

    with pytest.raises(SelfCheckError, match=r"first loss is ln 2: .*disagree before training"):
        check(tmp_path, tokenizer, edit)


def test_an_architecture_with_a_secret(tmp_path: Path, tokenizer: ExampleTokenizer) -> None:
    """Logits that the model scales and the scorer does not know of."""

    def edit(scorer: PairScorer, items: list[ReferencedPair]) -> list[ReferencedPair]:
        scorer.transform = LogitTransform(scale=2.0)
        return items

    with pytest.raises(SelfCheckError, match=r"fast path equals slow path: .*please report it"):
        check(tmp_path, tokenizer, edit)


def test_in_bfloat16_the_noise_is_said_and_stops_nothing(tmp_path: Path, tokenizer: ExampleTokenizer) -> None:
    checks, _ = check(tmp_path, tokenizer, precision=torch.bfloat16)
    named = {one.name: one for one in checks}
    assert all(one.passed for one in checks)
    assert "in float32" in named["fast path equals slow path"].detail
    numbers = re.findall(r"([\d.e-]+) (?:nats a token|a completion|in an implicit)", named["noise of bfloat16"].detail)
    assert len(numbers) == 3
    assert 1e-4 < float(numbers[0]) < 0.1


def test_in_bfloat16_the_layout_is_proven_in_float32_all_the_same(tmp_path: Path, tokenizer: ExampleTokenizer) -> None:
    """A fault far below the noise of the arithmetic."""

    def edit(scorer: PairScorer, items: list[ReferencedPair]) -> list[ReferencedPair]:
        scorer.transform = LogitTransform(scale=1.0005)
        return items

    with pytest.raises(SelfCheckError, match=r"fast path equals slow path: .*please report it"):
        check(tmp_path, tokenizer, edit, precision=torch.bfloat16)


def test_an_arithmetic_that_computes_nonsense_is_refused(
    tmp_path: Path, tokenizer: ExampleTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks_module, "NONSENSE", 1e-6)
    with pytest.raises(SelfCheckError, match=r"noise of bfloat16: .*set model.precision to float32"):
        check(tmp_path, tokenizer, precision=torch.bfloat16)


def test_in_bfloat16_a_reference_of_another_model_is_noticed(tmp_path: Path, tokenizer: ExampleTokenizer) -> None:
    def edit(_: PairScorer, items: list[ReferencedPair]) -> list[ReferencedPair]:
        return [dataclasses.replace(item, chosen_logp=item.chosen_logp - 5) for item in items]

    with pytest.raises(SelfCheckError, match=r"first loss is ln 2: .*disagree before training"):
        check(tmp_path, tokenizer, edit, precision=torch.bfloat16)


def test_a_missing_end(tmp_path: Path, tokenizer: ExampleTokenizer) -> None:
    def edit(_: PairScorer, items: list[ReferencedPair]) -> list[ReferencedPair]:
        chosen = items[0].pair.chosen
        cut = TokenizedSequence(chosen.ids[:-1], chosen.first_scored - (chosen.scored_tokens == 1))
        pair = TokenizedExample.pair("cut", cut, items[0].pair.rejected)
        return [dataclasses.replace(items[0], pair=pair), *items[1:]]

    with pytest.raises(SelfCheckError, match="EOS: 9 of 10 completions"):
        check(tmp_path, tokenizer, edit)


def test_a_doubled_beginning(tmp_path: Path) -> None:
    tokenizer = ExampleTokenizer(byte_level(bos=True), DataConfig(), terminators=frozenset({2}))
    assert tokenizer.adds_bos
    bos = tokenizer.tokenizer.bos_token_id

    def edit(scorer: PairScorer, items: list[ReferencedPair]) -> list[ReferencedPair]:
        doubled = []
        for item in items:
            sides = [
                TokenizedSequence(np.concatenate([[bos, bos], s.ids[1:]]).astype(np.int32), s.first_scored + 1)
                for s in (item.pair.chosen, item.pair.rejected)
            ]
            doubled.append(TokenizedExample.pair(item.pair.id, *sides))
        return referenced(scorer, doubled, tmp_path)

    with pytest.raises(SelfCheckError, match=r"one BOS: .* 10 have it twice"):
        check(tmp_path, tokenizer, edit)


def test_a_beginning_further_on_is_counted_and_stops_nothing(tmp_path: Path) -> None:
    """Some templates begin every turn with it."""
    tokenizer = ExampleTokenizer(byte_level(bos=True), DataConfig(), terminators=frozenset({2}))
    bos = tokenizer.tokenizer.bos_token_id

    def edit(scorer: PairScorer, items: list[ReferencedPair]) -> list[ReferencedPair]:
        chosen = items[0].pair.chosen
        ids = np.concatenate([[bos], chosen.ids[1:-1], [bos, 2]]).astype(np.int32)
        others = [
            TokenizedExample.pair(
                item.pair.id,
                *(
                    TokenizedSequence(np.concatenate([[bos], side.ids[1:]]).astype(np.int32), side.first_scored)
                    for side in (item.pair.chosen, item.pair.rejected)
                ),
            )
            for item in items
        ]
        others[0] = TokenizedExample.pair("within", TokenizedSequence(ids, chosen.first_scored), others[0].rejected)
        return referenced(scorer, others, tmp_path)

    checks, _ = check(tmp_path, tokenizer, edit)
    assert checks[0].passed and "0 have it twice, 1 have another further on" in checks[0].detail


def test_a_completion_that_was_cut_needs_no_end(tmp_path: Path, tokenizer: ExampleTokenizer) -> None:
    def edit(scorer: PairScorer, items: list[ReferencedPair]) -> list[ReferencedPair]:
        chosen = items[0].pair.chosen
        cut = TokenizedSequence(chosen.ids[:-1], chosen.first_scored - (chosen.scored_tokens == 1), tokens_cut=1)
        return referenced(scorer, [TokenizedExample.pair("cut", cut, items[0].pair.rejected)], tmp_path)

    checks, _ = check(tmp_path, tokenizer, edit)
    assert checks[1].passed and "1 of 1 completions end with" in checks[1].detail


def test_checks_leave_no_gradient(tmp_path: Path, tokenizer: ExampleTokenizer) -> None:
    _, scorer = check(tmp_path, tokenizer)
    assert all(parameter.grad is None for parameter in scorer.parameters())
    assert torch.is_grad_enabled()
