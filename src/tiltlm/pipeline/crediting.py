"""Credit by token, for objectives that read it: found by the model before training, kept in the run's folder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from tiltlm.checkpoints.identity import digest_of
from tiltlm.data.preparation import PreparedData
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.errors import ConfigError, DataError
from tiltlm.model.available_memory import available_memory
from tiltlm.model.reference import reference_address
from tiltlm.model.scorer import Scorer
from tiltlm.model.states import depths, hidden_states
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.setup import Setup
from tiltlm.report.wording import number
from tiltlm.runs.folder import RunFolder
from tiltlm.storage.whole_files import written_whole
from tiltlm.training.credit import FOLDS, Regression, credit, features_of_states, values_of_states

CREDIT = "credit.safetensors"
_BYTES = 4 + 4 + 8 + 8
"""Of a state's feature: as found, as summed, and standardised beside a copy, at most."""
_SQUARES = FOLDS + 4
"""Matrices of features by features that are alive at once: one a fold, their sum, and what one is solved by."""
_LITTLE = 0.01
"""Share of the variance of scores below which values are said to foretell next to nothing."""


def require_one_process(setup: Setup) -> None:
    """Refuses several ranks where credit is read, before data are prepared or a model is loaded.

    Raises:
        ConfigError: they are several.
    """
    if setup.objective.needs.credit and setup.ranks.several:
        name = setup.objective.objective.name
        raise ConfigError(f"`{name}` learns from credit by token, which is found by one process alone: start one.")


def with_credit(
    setup: Setup, policy: Scorer, data: PreparedData, folder: RunFolder, reporter: Reporter
) -> PreparedData:
    """The examples with what each token did for its answer's score, where the objective reads it.

    Values of states are learnt from the training examples alone, from the model that training starts from.

    Raises:
        ConfigError: an objective that did not ask for scores, layers that are not told apart, or more
            answers than memory holds the states of.
        DataError: all training examples have one prompt.
    """
    if not setup.objective.needs.credit:
        return data
    name = setup.objective.objective.name
    parts = (data.train, data.eval)
    if any(np.isnan(part.scores).any() for part in parts):
        raise ConfigError(
            f"`{name}` learns from credit by token, which is found from scores: declare that it needs those too, "
            'Needs(scores="value", credit=True).'
        )
    address = reference_address(policy, setup.precision, setup.ranks)
    arrays = [array for part in parts for array in (part.ids, part.bounds, part.first_scored, part.scores)]
    of = digest_of(np.frombuffer(address.encode(), dtype=np.uint8), *arrays)
    kept = _kept(folder, of)
    if kept is None:
        _require_room(setup, policy, data, name)
        kept = _found(setup, policy, data, reporter, name)
        with written_whole(folder.path / CREDIT) as unfinished:
            save_file({str(place): own for place, own in enumerate(kept)}, unfinished, {"of": of})
    train, held_out = (replace(part, credit=own) for part, own in zip(parts, kept, strict=True))
    return replace(data, train=train, eval=held_out)


def _kept(folder: RunFolder, of: str) -> list[np.ndarray] | None:
    """What an earlier start of this run found of the same examples by the same model."""
    if not (folder.path / CREDIT).is_file():
        return None
    with safe_open(folder.path / CREDIT, "np") as file:
        if (file.metadata() or {}).get("of") != of:
            return None
        return [file.get_tensor(str(place)) for place in range(2)]


def _found(setup: Setup, policy: Scorer, data: PreparedData, reporter: Reporter, name: str) -> list[np.ndarray]:
    """Credit of the training and of the held-out examples."""
    with reporter.progress("states of answers", len(data.train) + len(data.eval), "examples") as advance:

        def features(columns: TokenColumns) -> np.ndarray:
            budget = setup.config.training.token_budget
            middle, later = hidden_states(policy, columns, depths(policy), setup.precision, budget, advance)
            return features_of_states(middle, later, columns)

        of_train, of_held_out = features(data.train), features(data.eval)
    try:
        values, regression = values_of_states(of_train, data.train)
    except ValueError as error:
        raise DataError(f"`{name}` learns what states are worth from other prompts, and there is one alone.") from error
    _say(regression, reporter)
    return [credit(values, data.train), credit(regression(of_held_out), data.eval)]


def _say(regression: Regression, reporter: Reporter) -> None:
    reporter.say(
        f"  credit by token: the model's states foretell {number(100 * regression.explained)}% of the variance of "
        "scores, of prompts that were not seen"
    )
    if regression.explained < _LITTLE:
        reporter.say(
            "  look at: they foretell next to nothing, so credit is noise around the whole answer's score. More "
            "answers, or an objective that reads whole scores (`rebel`), are the remedy."
        )


def _require_room(setup: Setup, policy: Scorer, data: PreparedData, name: str) -> None:
    states = int(data.train.scored_starts[-1] + data.eval.scored_starts[-1])
    features = 2 * policy.model.config.get_text_config().hidden_size
    needed = _BYTES * states * features + 8 * _SQUARES * features**2
    there = available_memory(torch.device("cpu"))
    if there is not None and needed > there:
        raise ConfigError(
            f"`{name}` keeps what the model makes of {states:,} tokens, about {needed / 1e9:.1f} GB, and "
            f"{there / 1e9:.1f} are free: give fewer answers at once (data.max_train_pairs; in rounds rounds.prompts, "
            "rounds.answers), or take an objective of whole scores (`rebel`)."
        )
