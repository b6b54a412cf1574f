"""The start-up checks pass on a sound start and stop an unsound one with an explanation."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import UNSHAREABLE, build
from tiny_runs import at_work, bound, examples_for, moved, pairs, referenced, sequence, tiny_model, trainer
from tiny_tokenizers import byte_level

from tiltlm.config import DataConfig, TrainingConfig
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.errors import SelfCheckError
from tiltlm.model.head import LogitTransform
from tiltlm.model.scorer import Scorer
from tiltlm.objectives import OBJECTIVES
from tiltlm.runs.outcomes import Check
from tiltlm.training import checks as checks_module
from tiltlm.training.bound_objective import BoundObjective
from tiltlm.training.checks import run_checks
from tiltlm.training.step_plans import Referenced

LAYOUT = "fast path equals slow path"
Edit = Callable[[Scorer, Referenced], Referenced]


@pytest.fixture
def tokenizer() -> ExampleTokenizer:
    return ExampleTokenizer(byte_level(), DataConfig(), terminators=frozenset({2}))


def check(
    tmp_path: Path,
    tokenizer: ExampleTokenizer,
    edit: Edit = lambda scorer, examples: examples,
    loss: BoundObjective | None = None,
    precision: torch.dtype = torch.float32,
    own: bool = True,
    columns: TokenColumns | None = None,
    scorer: Scorer | None = None,
    training: TrainingConfig | None = None,
) -> dict[str, Check]:
    policy = scorer or Scorer(tiny_model())
    objective = loss or bound()
    needs = objective.needs
    given = examples_for(needs, 5) if columns is None else columns
    examples = referenced(policy, given, tmp_path) if needs.reference else Referenced(given, None)
    made = trainer(policy, edit(policy, examples), None, training, objective, precision)
    return {one.name: one for one in run_checks(made, tokenizer, own)}


def another_reference(by: float) -> Edit:
    """Its values are so many nats a token off."""

    def edit(scorer: Scorer, examples: Referenced) -> Referenced:
        assert examples.reference is not None
        return Referenced(examples.columns, examples.reference - np.float32(by))

    return edit


def another_transform(scale: float) -> Edit:
    """Logits that the model scales and the scorer does not know of."""

    def edit(scorer: Scorer, examples: Referenced) -> Referenced:
        scorer.transform = LogitTransform(scale=scale)
        return examples

    return edit


def with_first(columns: TokenColumns, change: Callable[[TokenizedExample], TokenizedExample]) -> TokenColumns:
    """The columns with their first example changed."""
    first, *others = columns
    return TokenColumns.of([change(first), *others])


def test_a_sound_start(tmp_path: Path, tokenizer: ExampleTokenizer) -> None:
    checks = check(tmp_path, tokenizer)
    assert list(checks) == ["one BOS", "EOS", LAYOUT, "first loss is ln 2"]
    assert all(one.passed for one in checks.values())
    assert "0.69314" in checks["first loss is ln 2"].detail
    assert list(check(tmp_path, tokenizer, loss=bound("ipo", beta=0.5)))[-1] == "first loss is 1.0000"


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("budget", [40, 4096])
def test_every_objective_may_start(
    tmp_path: Path, tokenizer: ExampleTokenizer, name: str, precision: torch.dtype, budget: int
) -> None:
    training = TrainingConfig(micro_batch_tokens=budget)
    checks = check(tmp_path, tokenizer, loss=bound(name), precision=precision, training=training)
    firsts = {"sigmoid": "ln 2", "ld_dpo": "ln 2", "ipo": "25.0000", "kto": "0.5000", "simpo": None}
    wanted = ["one BOS", "EOS", LAYOUT]
    wanted += ["noise of bfloat16"] if precision is torch.bfloat16 else []
    if name in firsts:
        wanted += [f"first loss is {firsts[name]}"] if firsts[name] else []
        assert list(checks) == wanted
    assert ("first loss" in " ".join(checks)) == OBJECTIVES[name].needs.reference
    assert all(one.passed for one in checks.values())


@pytest.mark.parametrize("name", UNSHAREABLE)
def test_a_model_that_cannot_share_may_start_whatever_the_lengths(
    tmp_path: Path, tokenizer: ExampleTokenizer, name: str
) -> None:
    """One sequence a row takes many columns where lengths are uneven."""
    rng = np.random.default_rng(0)

    def answer(tokens: int) -> TokenizedSequence:
        return sequence([1, 5, *rng.integers(3, 60, tokens), 2], 2)

    lengths = (1, 1, 1, 2, 40)
    columns = TokenColumns.of([TokenizedExample.pair(str(n), answer(n), answer(n)) for n in lengths])
    checks = check(tmp_path, tokenizer, columns=columns, scorer=Scorer(build(UNSHAREABLE[name][0](), torch.float32)))
    assert "one sequence a row" in checks[LAYOUT].detail


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_step_may_be_of_few_examples(tmp_path: Path, tokenizer: ExampleTokenizer, count: int) -> None:
    assert all(one.passed for one in check(tmp_path, tokenizer, columns=pairs(count)).values())


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if OBJECTIVES[name].needs.reference])
def test_a_reference_that_is_not_the_policy(tmp_path: Path, tokenizer: ExampleTokenizer, name: str) -> None:
    objective = at_work(bound(name), moved(Scorer(tiny_model()), 0.02))
    with pytest.raises(SelfCheckError, match=r"first loss is [\w. ]+: .*disagree before training"):
        check(tmp_path, tokenizer, another_reference(0.2), objective)


def test_a_reference_that_is_meant_to_be_another_model(tmp_path: Path, tokenizer: ExampleTokenizer) -> None:
    checks = check(tmp_path, tokenizer, another_reference(0.2), own=False)
    assert "not expected, as the reference is another model" in checks["first loss is ln 2"].detail


def test_reference_values_in_another_order_are_noticed(tmp_path: Path, tokenizer: ExampleTokenizer) -> None:
    """The right values beside the wrong tokens: sums over all of them would not tell."""

    def edit(scorer: Scorer, examples: Referenced) -> Referenced:
        assert examples.reference is not None
        return Referenced(examples.columns, np.roll(examples.reference, 1))

    with pytest.raises(SelfCheckError, match="disagree before training"):
        check(tmp_path, tokenizer, edit)


def test_an_architecture_with_a_secret(tmp_path: Path, tokenizer: ExampleTokenizer) -> None:
    with pytest.raises(SelfCheckError, match=rf"{LAYOUT}: .*please report it"):
        check(tmp_path, tokenizer, another_transform(2.0))


def test_in_bfloat16_the_noise_is_said_and_stops_nothing(tmp_path: Path, tokenizer: ExampleTokenizer) -> None:
    checks = check(tmp_path, tokenizer, precision=torch.bfloat16)
    assert all(one.passed for one in checks.values())
    assert "in float32" in checks[LAYOUT].detail
    numbers = re.findall(r"([\d.e-]+) (?:nats a token|a completion|in an implicit)", checks["noise of bfloat16"].detail)
    assert len(numbers) == 3
    assert 1e-4 < float(numbers[0]) < 0.1


def test_of_single_completions_there_is_no_noise_of_a_margin(tmp_path: Path, tokenizer: ExampleTokenizer) -> None:
    checks = check(tmp_path, tokenizer, loss=bound("kto"), precision=torch.bfloat16)
    assert "margin" not in checks["noise of bfloat16"].detail


def test_in_bfloat16_the_layout_is_proven_in_float32_all_the_same(tmp_path: Path, tokenizer: ExampleTokenizer) -> None:
    """A fault far below the noise of the arithmetic."""
    with pytest.raises(SelfCheckError, match=rf"{LAYOUT}: .*please report it"):
        check(tmp_path, tokenizer, another_transform(1.0005), precision=torch.bfloat16)


def test_an_arithmetic_that_computes_nonsense_is_refused(
    tmp_path: Path, tokenizer: ExampleTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks_module, "NONSENSE", 1e-6)
    with pytest.raises(SelfCheckError, match=r"noise of bfloat16: .*set model.precision to float32"):
        check(tmp_path, tokenizer, precision=torch.bfloat16)


def test_in_bfloat16_a_reference_of_another_model_is_noticed(tmp_path: Path, tokenizer: ExampleTokenizer) -> None:
    with pytest.raises(SelfCheckError, match=r"first loss is ln 2: .*disagree before training"):
        check(tmp_path, tokenizer, another_reference(1.0), precision=torch.bfloat16)


def ended_before_its_end(example: TokenizedExample, tokens_cut: int) -> TokenizedExample:
    chosen = example.chosen
    first = chosen.first_scored - (chosen.scored_tokens == 1)
    return TokenizedExample.pair("cut", TokenizedSequence(chosen.ids[:-1], first, tokens_cut), example.rejected)


def test_a_missing_end(tmp_path: Path, tokenizer: ExampleTokenizer) -> None:
    columns = with_first(pairs(5), lambda example: ended_before_its_end(example, 0))
    with pytest.raises(SelfCheckError, match="EOS: 9 of 10 completions"):
        check(tmp_path, tokenizer, columns=columns)


def test_a_completion_that_was_cut_needs_no_end(tmp_path: Path, tokenizer: ExampleTokenizer) -> None:
    columns = with_first(pairs(5), lambda example: ended_before_its_end(example, 1))
    eos = check(tmp_path, tokenizer, columns=columns)["EOS"]
    assert eos.passed and "9 of 9 completions end with" in eos.detail


def test_a_mismatched_answer_is_looked_at_where_it_is_at_home(tmp_path: Path, tokenizer: ExampleTokenizer) -> None:
    """And not counted once more."""
    columns = examples_for(OBJECTIVES["kto"].needs, 5)
    labelled = int((columns.labels >= 0).sum())
    detail = check(tmp_path, tokenizer, loss=bound("kto"), columns=columns)["EOS"].detail
    assert f"{labelled} of {labelled} completions" in detail
    assert labelled < columns.sequences


def beginning_with(columns: TokenColumns, start: list[int]) -> list[TokenizedExample]:
    """The examples with other tokens in the place of their first."""

    def begun(one: TokenizedSequence) -> TokenizedSequence:
        return sequence([*start, *one.ids[1:]], one.first_scored + len(start) - 1)

    return [TokenizedExample.pair(e.id, begun(e.chosen), begun(e.rejected)) for e in columns]


@pytest.fixture
def adding_bos() -> ExampleTokenizer:
    tokenizer = ExampleTokenizer(byte_level(bos=True), DataConfig(), terminators=frozenset({2}))
    assert tokenizer.adds_bos
    return tokenizer


def test_a_doubled_beginning(tmp_path: Path, adding_bos: ExampleTokenizer) -> None:
    bos = adding_bos.tokenizer.bos_token_id
    columns = TokenColumns.of(beginning_with(pairs(5), [bos, bos]))
    with pytest.raises(SelfCheckError, match=r"one BOS: .* 10 have it twice"):
        check(tmp_path, adding_bos, columns=columns)


def test_a_missing_beginning(tmp_path: Path, adding_bos: ExampleTokenizer) -> None:
    with pytest.raises(SelfCheckError, match=r"one BOS: 10 of 10 sequences lack it"):
        check(tmp_path, adding_bos, columns=pairs(5))


def test_a_beginning_further_on_is_counted_and_stops_nothing(tmp_path: Path, adding_bos: ExampleTokenizer) -> None:
    """Some templates begin every turn with it."""
    bos = adding_bos.tokenizer.bos_token_id
    columns = TokenColumns.of(beginning_with(pairs(5), [bos]))

    def again(example: TokenizedExample) -> TokenizedExample:
        chosen = example.chosen
        ids = [*chosen.ids[:-1], bos, 2]
        return TokenizedExample.pair("within", sequence(ids, chosen.first_scored), example.rejected)

    one_bos = check(tmp_path, adding_bos, columns=with_first(columns, again))["one BOS"]
    assert one_bos.passed and "0 have it twice, 1 have another further on" in one_bos.detail


def test_checks_leave_no_gradient(tmp_path: Path, tokenizer: ExampleTokenizer) -> None:
    scorer = Scorer(tiny_model())
    before = [parameter.detach().clone() for parameter in scorer.parameters()]
    check(tmp_path, tokenizer, scorer=scorer)
    assert all(parameter.grad is None for parameter in scorer.parameters())
    assert all(torch.equal(one, other) for one, other in zip(before, scorer.parameters(), strict=True))
    assert torch.is_grad_enabled()
