"""The figures of a run are those of the model in its folder, whatever the arithmetic and the type of the files."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kinds_of_objectives import ONE_OF_EACH
from safetensors.numpy import load_file
from tiny_models import one_at_a_time
from tiny_tokenizers import byte_level
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from tiltlm.cli import main
from tiltlm.config import Config, config_from_dict
from tiltlm.data.preparation import prepare_data, read_data
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.objectives import OBJECTIVES
from tiltlm.objectives.interface import Needs
from tiltlm.pipeline import keeping
from tiltlm.pipeline.crediting import CREDIT
from tiltlm.pipeline.setup import Setup, bound, set_up
from tiltlm.report.verdict import findings
from tiltlm.runs.run_files import read_run

RUN = Path("runs/one")


@pytest.fixture(autouse=True)
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    write_rows(Needs())


def write_rows(needs: Needs) -> None:
    """Sixty rows that an objective with such needs takes: pairs, scored ones, or lists."""

    def answers(n: int) -> dict[str, Any]:
        if needs.unit == "list":
            return {"responses": [" no", f" yes, {n}", " maybe"], "scores": [0.5, 3, 1 + n % 2]}
        scores = {"score_chosen": 3, "score_rejected": 1 + n % 2} if needs.scores != "none" else {}
        return {"chosen": f" yes, {n}", "rejected": " no", **scores}

    rows = [{"prompt": f"Is {n} a number? Answer:", **answers(n)} for n in range(60)]
    Path("pairs.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


def model_stored_in(dtype: torch.dtype) -> None:
    tokenizer = byte_level()
    tokenizer.save_pretrained("tiny")
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_layer": 2, "n_embd": 64, "n_head": 4, "n_positions": 128, "initializer_range": 0.2}
    config = GPT2Config(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=1, **sizes)
    torch.nn.Module.to(model := GPT2LMHeadModel(config), dtype)
    model.save_pretrained("tiny")


def trained(precision: str, rate: str, *more: str) -> None:
    options = ["--data.train", "pairs.jsonl", "--data.eval-fraction", "0.3", "--data.max-length", "100"]
    options += ["--model.path", "tiny", "--model.precision", precision, "--training.learning-rate", rate]
    options += [
        "--comparison.max-new-tokens",
        "8",
        "--training.batch-pairs",
        "8",
        "--comparison.prompts",
        "0",
        "--run.name",
        "one",
    ]
    assert main(["train", *options, *more]) == 0


def margins_of_the_files() -> torch.Tensor:
    """Implicit reward margins of the held-out pairs by stock transformers, in float32, from the files alone."""
    config = config_from_dict(read_run(RUN).settings)
    held_out = prepare_data(read_data(config), set_up(config).tokenizer, lambda done: None).eval
    sequences = [side for pair in held_out for side in (pair.chosen, pair.rejected)]
    with torch.no_grad():
        policy, reference = (
            one_at_a_time(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), sequences)
            for folder in (RUN / "model", "tiny")
        )
    assert config.loss.beta is not None
    rewards: torch.Tensor = config.loss.beta * (policy - reference)
    return rewards[0::2] - rewards[1::2]


def token_values(folder: Path | str, columns: TokenColumns) -> np.ndarray:
    """Log-probabilities of all scored tokens by stock transformers, one sequence at a time, from the files alone."""
    tokens = torch.from_numpy(columns.ids[scored_places(columns)]).long()
    own: np.ndarray = distributions(folder, columns).gather(-1, tokens[:, None]).squeeze(-1).numpy()
    return own


def scored_places(columns: TokenColumns) -> np.ndarray:
    """Where the scored tokens stand among all."""
    starts = columns.bounds[:-1] + columns.first_scored
    return np.concatenate([np.arange(start, end) for start, end in zip(starts, columns.bounds[1:], strict=True)])


def distributions(folder: Path | str, columns: TokenColumns) -> torch.Tensor:
    """Log-probabilities of the whole vocabulary where each scored token stands."""
    model, values = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), []
    for number in range(columns.sequences):
        ids, first = torch.from_numpy(columns.sequence(number).ids).long(), int(columns.first_scored[number])
        with torch.no_grad():
            values.append(model(input_ids=ids[None]).logits[0].log_softmax(-1)[first - 1 : -1])
    return torch.cat(values)


def values_for(needs: Needs, folder: Path | str, columns: TokenColumns) -> np.ndarray:
    """All that an objective must know of a model, against the base model."""
    logps, whole = token_values(folder, columns), distributions(folder, columns)
    before = distributions("tiny", columns)
    more = [whole.exp().square().sum(-1).log()] if needs.squares else []
    more += [(before.exp() * (before - whole)).sum(-1)] if needs.live else []
    return np.stack([logps, *(column.numpy() for column in more)], axis=1) if more else logps


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_whatever_the_objective_the_figures_are_those_of_the_files(name: str, precision: str) -> None:
    model_stored_in(torch.float32)
    write_rows(OBJECTIVES[name].needs)
    trained(precision, "1e-4", "--loss.name", name)
    run = read_run(RUN)
    assert run.evaluation is not None and run.outcome is not None
    config, needs = config_from_dict(run.settings), OBJECTIVES[name].needs
    columns = prepare_data(read_data(config, needs), set_up(config).tokenizer, lambda done: None).eval
    if needs.credit:
        credit = load_file(RUN / CREDIT)["1"]
        assert credit.any()
        columns = replace(columns, credit=credit)
    kept = {name: torch.tensor(value) for name, value in run.evaluation.running.items()}
    objective = bound(config.loss).with_running(kept)
    saved, before = (values_for(needs, folder, columns) for folder in (RUN / "model", "tiny"))
    reference = token_values("tiny", columns)

    def loss(values: np.ndarray) -> float:
        return float(objective(objective.scored_columns(columns, values, reference)).losses_U.mean())

    assert run.evaluation.figures.loss == pytest.approx(loss(saved), abs=1e-5)
    assert loss(saved) < loss(before)
    assert run.evaluation.figures.examples == len(columns)
    assert ("reference" in run.outcome.stages) == needs.reference
    assert run.evaluation.chosen_logp_change is not None
    assert (run.evaluation.seen is not None) == (run.evaluation.margin is not None)
    if name == "sigmoid":
        assert run.evaluation.seen is not None
        found = {pair.id: pair.margin for pair in run.evaluation.seen.pairs}
        assert found == pytest.approx(margins_of_training(config), abs=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["sigmoid", "tdpo2"])
def test_at_another_temperature_all_figures_are_those_of_its_softmax(name: str, precision: str) -> None:
    """Of policy and reference, by stock transformers, with logits divided by it."""
    model_stored_in(torch.float32)
    write_rows(OBJECTIVES[name].needs)
    trained(precision, "1e-4", "--loss.name", name, "--training.temperature", "0.5")
    run = read_run(RUN)
    assert run.evaluation is not None
    config, needs = config_from_dict(run.settings), OBJECTIVES[name].needs
    columns = prepare_data(read_data(config, needs), set_up(config).tokenizer, lambda done: None).eval
    objective = bound(config.loss)

    def loss(temperature: float) -> float:
        saved, before = (tempered(distributions(folder, columns), temperature) for folder in (RUN / "model", "tiny"))
        tokens = torch.from_numpy(columns.ids[scored_places(columns)].astype(np.int64))[:, None]
        values, reference = (own.gather(-1, tokens).squeeze(-1).numpy() for own in (saved, before))
        if needs.live:
            values = np.stack([values, (before.exp() * (before - saved)).sum(-1).numpy()], axis=1)
        return float(objective(objective.scored_columns(columns, values, reference)).losses_U.mean())

    assert run.evaluation.figures.loss == pytest.approx(loss(0.5), abs=1e-5)
    assert abs(loss(1.0) - loss(0.5)) > 1e-4
    first = json.loads((RUN / "metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-2)


def tempered(logps: torch.Tensor, temperature: float) -> torch.Tensor:
    return (logps / temperature).log_softmax(-1)


def margins_of_training(config: Config) -> dict[str, float]:
    """Implicit reward margins of the training pairs, from the files alone."""
    columns = prepare_data(read_data(config), set_up(config).tokenizer, lambda done: None).train
    saved, before = (token_values(folder, columns) for folder in (RUN / "model", "tiny"))
    ratios = np.add.reduceat((saved - before).astype(np.float64), columns.scored_starts[:-1])
    assert config.loss.beta is not None
    margins = config.loss.beta * (ratios[0::2] - ratios[1::2])
    return dict(zip(columns.names, margins.tolist(), strict=True))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_the_held_out_figures_are_those_of_the_files(precision: str, stored: torch.dtype) -> None:
    model_stored_in(stored)
    trained(precision, "1e-4")
    summary = read_run(RUN).summary
    assert summary is not None
    margins = margins_of_the_files()
    assert summary.eval_margin == pytest.approx(margins.mean().item(), abs=1e-5)
    assert summary.eval_accuracy == pytest.approx((margins > 0).float().mean().item())
    assert summary.saved_as == str(stored).removeprefix("torch.")
    assert AutoModelForCausalLM.from_pretrained(RUN / "model").dtype is stored
    assert (summary.survived is None) == (stored is torch.float32)
    # What the loop saw is what was saved, within what bfloat16 adds.
    assert summary.training_margin == pytest.approx(summary.eval_margin, rel=0.2, abs=2e-3)


def test_what_a_bfloat16_file_keeps_is_said() -> None:
    model_stored_in(torch.bfloat16)
    trained("float32", "1e-4")
    run = read_run(RUN)
    assert run.summary is not None and run.evaluation is not None
    share = run.summary.survived
    assert share is not None and share.interval is not None
    assert run.evaluation.trained_margin is not None and run.evaluation.margin is not None
    assert share.mean == pytest.approx(run.evaluation.margin.mean / run.evaluation.trained_margin)
    assert share.mean == pytest.approx(1, abs=0.2)
    assert "Saved in bfloat16" in [finding.topic for finding in findings(run.summary)]


def test_the_type_of_the_files_can_be_chosen() -> None:
    model_stored_in(torch.bfloat16)
    trained("float32", "1e-4", "--model.save-dtype", "float32")
    summary = read_run(RUN).summary
    assert summary is not None
    assert (summary.saved_as, summary.survived) == ("float32", None)
    assert AutoModelForCausalLM.from_pretrained(RUN / "model").dtype is torch.float32


def test_a_reference_at_work_is_measured_against_as_it_was_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training dithers it as it does the policy; the trained weights are compared with it in float32 without that."""
    model_stored_in(torch.bfloat16)
    loaded = AutoModelForCausalLM.from_pretrained("tiny", dtype=torch.float32)
    seen: list[bool] = []
    real = keeping.exact_values

    def watched(setup: Setup, what: str, *more: Any) -> np.ndarray:
        reference = more[-1]
        if "trained weights" in what:
            own = dict(reference.model.named_parameters())
            seen.append(all(torch.equal(own[name], weights) for name, weights in loaded.named_parameters()))
        return real(setup, what, *more)

    monkeypatch.setattr(keeping, "exact_values", watched)
    trained("bfloat16", "1e-4", "--loss.name", "tdpo2", "--training.max-steps", "2")
    assert seen == [True]
