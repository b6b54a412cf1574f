"""The model that answers are drawn from: a model by its name, or the one that a run trained."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from tiltlm.config import Config, ModelConfig
from tiltlm.config.resuming import settings_in_place
from tiltlm.config.validation import validate
from tiltlm.data.token_cache import tokenizer_state
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.errors import ConfigError, RunError
from tiltlm.model.reference import fingerprint
from tiltlm.model.scorer import Scorer
from tiltlm.pipeline.models import saved_model, starting_model
from tiltlm.pipeline.preflight import prepare_model
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.setup import Setup, set_up
from tiltlm.runs.folder import is_run
from tiltlm.runs.run_files import has_model, read_run


@dataclass(frozen=True, slots=True)
class SampledModel:
    """A model at work, with what asks it.

    name: as it was named. weights: a digest of all that decides its answers: weights, configuration, tokenizer, chat
        template. positions: longest sequence that it knows, in tokens; None where it has no such limit.
    """

    name: str
    weights: str
    scorer: Scorer
    tokenizer: ExampleTokenizer
    positions: int | None
    precision: torch.dtype

    @staticmethod
    def of(name: str, scorer: Scorer, setup: Setup) -> SampledModel:
        """A model that is loaded already, such as the policy of a run, in the run's arithmetic."""
        digest = hashlib.sha256(fingerprint(scorer.model, setup.ranks).encode())
        digest.update(json.dumps(tokenizer_state(setup.tokenizer)).encode())
        return SampledModel(name, digest.hexdigest()[:32], scorer, setup.tokenizer, setup.positions, setup.precision)


def open_sampled(name: str, settings: Config, max_new_tokens: int, reporter: Reporter) -> SampledModel:
    """Loads the model that a name stands for: a run's folder (its trained model), or what model.path may be.

    Args:
        settings: of which the sections model and hub hold, but for the model's path; of a run its own, but for device,
            precision, and whether code that comes with the model is trusted.

    Raises:
        RunError: the run has no trained model, or its model comes with code that nobody trusts here.
        ModelError: the model cannot be had. ConfigError: a setting is not possible here.
    """
    run = Path(name).expanduser()
    if is_run(run):
        setup = set_up(_of_run(run, settings, reporter))
        _require_room(setup, max_new_tokens)
        return SampledModel.of(name, saved_model(setup, run / "model"), setup)
    # Every prompt is given whole, or left out: data.max_length, which would cut it, is none of the model's limits here.
    data = dataclasses.replace(settings.data, max_length=1)
    comparison = dataclasses.replace(settings.comparison, max_new_tokens=1)
    model = dataclasses.replace(settings.model, path=name)
    config = validate(dataclasses.replace(settings, model=model, data=data, comparison=comparison))
    prepare_model(config, reporter)
    setup = set_up(config)
    _require_room(setup, max_new_tokens)
    return SampledModel.of(name, starting_model(setup, reporter), setup)


def _of_run(run: Path, settings: Config, reporter: Reporter) -> Config:
    """The run's own settings, with what is given here of the machine."""
    files = read_run(run)
    if not has_model(run):
        raise RunError(f"the run in {run} holds no trained model.")
    config = settings_in_place(run, files.settings)
    given, plain = settings.model, ModelConfig()
    if config.model.trust_remote_code and not given.trust_remote_code:
        raise RunError(
            f"the run in {run} was trained with model.trust_remote_code, so asking its model runs Python code that "
            "came with it: say --trust-remote-code if you trust it."
        )
    if given.chat_template != plain.chat_template:
        raise ConfigError(f"--chat-template has no effect on the run {run}, which has its own: leave it out.")
    model = dataclasses.replace(config.model, device=given.device, precision=given.precision)
    config = dataclasses.replace(config, model=model)
    prepare_model(config, reporter)
    return config


def _require_room(setup: Setup, max_new_tokens: int) -> None:
    if setup.positions is not None and max_new_tokens >= setup.positions:
        raise ConfigError(
            f"--max-new-tokens is {max_new_tokens}, but the model knows {setup.positions} positions, and the prompt "
            "needs some of them: lower it."
        )
