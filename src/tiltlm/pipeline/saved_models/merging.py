"""A trained adapter into plain weights: merged in float32, written, and compared with what it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tiltlm.config.resuming import settings_in_place
from tiltlm.data.tokens.token_columns import TokenizedSequence
from tiltlm.errors import RunError, SelfCheckError
from tiltlm.model.adapters import merged
from tiltlm.model.finding import ModelSource
from tiltlm.model.loading import model_facts
from tiltlm.model.saving import choose_save_dtype, round_weights, save_model
from tiltlm.model.scorer import Scorer
from tiltlm.model.scoring import score_sequences
from tiltlm.model.weights import load_model
from tiltlm.pipeline.models import saved_model
from tiltlm.pipeline.preflight import prepare_model
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.setup import Setup, set_up
from tiltlm.runs.run_files import RunFiles, has_model, read_run
from tiltlm.storage.whole_files import written_whole

MERGED = "merged"
"""The folder in a run, where none is named."""

TOLERANCE = 1e-4
"""How far the merged weights may be off, in nats a token, before they are rounded: the order of sums."""

ROUNDING = 0.1
"""How far weights in a narrower type may be off, in nats a token on average. Beyond it rounding lost too much."""

_RANDOM_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Merge:
    """How far the merged model is from model and adapter, in nats a token: as merged, and as its files hold it."""

    place: Path
    exact: float
    written: float


def merge(run: Path, place: Path | None, reporter: Reporter) -> Merge:
    """Writes the trained model of a run as plain weights that need no adapter.

    Args:
        place: the folder of the model, which must not be there; None: `merged` in the run's folder.

    Raises:
        RunError: the run trained no adapter, saved no model, or the folder is there.
        SelfCheckError: what was merged is not what was trained; nothing is left of it.
    """
    files = read_run(run)
    place = run / MERGED if place is None else place
    if place.exists():
        raise RunError(f"{place} is there already: name a folder that is not.")
    if not has_model(run):
        raise RunError(f"the run in {run} holds no trained model.")
    config = settings_in_place(run, files.settings)
    prepare_model(config, reporter)
    setup = set_up(config)
    if setup.base is None:
        raise RunError(f"the run in {run} trained all weights: {run / 'model'} is a plain model already.")
    trained = saved_model(setup, run / "model")
    examples = _examples(setup, files)
    wanted = _logps(setup, trained, examples)
    whole = merged(trained)
    del trained
    exact = _apart(wanted, _logps(setup, Scorer(whole), examples))
    if exact > TOLERANCE:
        raise SelfCheckError(
            f"the merged model is {exact:.1e} nats a token from model and adapter (limit {TOLERANCE:.0e}), so it was "
            "not written: please report it."
        )
    dtype, why = choose_save_dtype(config.model.save_dtype, model_facts(setup.source, setup.tokenizer.tokenizer).stored)
    round_weights(whole, dtype)
    place.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(place) as unfinished:
        save_model(whole, setup.tokenizer.tokenizer, setup.source, unfinished)
        del whole
        found = Scorer(load_model(ModelSource(str(unfinished), True, setup.source.trust_remote_code), setup.device))
        written = _apart(wanted, _logps(setup, found, examples))
        limit = TOLERANCE if dtype is torch.float32 else ROUNDING
        if written > limit:
            raise SelfCheckError(
                f"the merged model as written is {written:.1e} nats a token from model and adapter (limit "
                f"{limit:.0e}): set model.save_dtype to float32 in the run's config.json, and merge again."
            )
    reporter.say(
        f"{place}: merged from the adapter and its model ({setup.base.in_words}); {why}. It is {exact:.1e} nats a "
        f"token from the two as merged (limit {TOLERANCE:.0e}), {written:.1e} as its files hold it (limit {limit:.0e})."
    )
    return Merge(place, exact, written)


def _examples(setup: Setup, files: RunFiles) -> list[TokenizedSequence]:
    """The texts that the run's record shows, and random tokens, which reach more of the weights."""
    tokenizer = setup.tokenizer.tokenizer
    sequences = []
    for example in files.data.examples:
        for text in (example.chosen, example.rejected):
            ids = tokenizer(f"{example.prompt}{text or ''}", add_special_tokens=False)["input_ids"]
            sequences.append(np.array(ids[: setup.positions], dtype=np.int32))
    random = np.random.default_rng(0).integers(0, setup.rows or tokenizer.vocab_size, _RANDOM_TOKENS)
    sequences.append(random[: setup.positions].astype(np.int32))
    return [TokenizedSequence(ids, 1) for ids in sequences if len(ids) > 1]


def _logps(setup: Setup, scorer: Scorer, sequences: list[TokenizedSequence]) -> np.ndarray:
    budget = setup.config.training.token_budget
    return np.concatenate(score_sequences(scorer, sequences, torch.float32, budget))


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(np.float64) - other).mean())
