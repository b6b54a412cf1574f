"""What a run's settings come to on this machine: model, tokenizer, device, arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import xxhash
from torch import Tensor

from tiltlm.config import Config, LossConfig
from tiltlm.config.judge_words import NONE
from tiltlm.data.tokens.templates import choose_template
from tiltlm.data.tokens.tokenization import ExampleTokenizer, check_limits
from tiltlm.distributed.ranks import ALONE, Ranks
from tiltlm.distributed.sharding import require_possible
from tiltlm.errors import ConfigError, ModelError
from tiltlm.evaluation.comparison import AnswerComparison
from tiltlm.judges.choosing import pointwise_judge
from tiltlm.model.adapter_files import ADAPTER, ADAPTER_WEIGHTS
from tiltlm.model.adapters import require_packages, require_targets
from tiltlm.model.base_choice import choose_base
from tiltlm.model.compiled_layers import require_compiler
from tiltlm.model.finding import CONFIG, ModelSource, find_model
from tiltlm.model.frozen import Base
from tiltlm.model.loading import choose_device, choose_precision, load_tokenizer, model_facts
from tiltlm.model.repeatable import require_choice
from tiltlm.model.saving import choose_save_dtype
from tiltlm.model.soundness import require_sound, without_weights
from tiltlm.model.steering_vectors import train_steering_vectors
from tiltlm.training.bound_objective import BoundObjective


@dataclass(frozen=True, slots=True)
class Setup:
    """What the settings come to on this machine, before any weight is loaded.

    stored: the type of the weights in the model's files; None where its configuration does not say.
    base: how the model is kept that an adapter is trained on; None where all weights are trained.
    ranks: the processes that do the work together.
    """

    config: Config
    source: ModelSource
    tokenizer: ExampleTokenizer
    positions: int | None
    rows: int | None
    device: torch.device
    precision: torch.dtype
    precision_why: str
    save_dtype: torch.dtype
    save_why: str
    stored: torch.dtype | None
    base: Base | None = None
    ranks: Ranks = ALONE

    @property
    def objective(self) -> BoundObjective:
        """The objective that the settings name. A user's own may be unknown where nothing is trained."""
        return bound(self.config.loss)


def set_up(config: Config, ranks: Ranks = ALONE) -> Setup:
    """Finds the model's files, tokenizer and limits, the device and the arithmetic.

    Raises:
        ModelError, ConfigError: something named in the settings is not there.
    """
    torch.manual_seed(config.run.seed)
    device = choose_device(config.model.device)
    require_possible(config.distributed, ranks, config.adapter.quantise != "none")
    require_choice(config.training.deterministic, device)
    if config.training.compile:
        require_compiler(device)
    precision, why = choose_precision(config.model.precision, device)
    source = find_model(config.model.path, config.hub, config.model.trust_remote_code)
    tokenizer = load_tokenizer(source)
    facts = model_facts(source, tokenizer)
    check_limits(config.data, config.comparison, facts.positions)
    choose_template(tokenizer, config.model.chat_template)
    encoder = ExampleTokenizer(tokenizer, config.data, facts.terminators)
    base = choose_base(config.adapter, source, device, precision, facts.stored)
    if source.adapter is not None and config.training.parameters != "all":
        raise ConfigError(
            f"training.parameters is `{config.training.parameters}`, but model.path ({config.model.path}) is an "
            "adapter, which is gone on with: remove it, or merge that adapter first."
        )
    save_dtype, save_why = choose_save_dtype(config.model.save_dtype, facts.stored)
    if base is not None:
        require_packages(base)
        save_dtype, save_why = torch.float32, "the adapter, saved in float32"
    return Setup(
        config,
        source,
        encoder,
        facts.positions,
        facts.rows,
        device,
        precision,
        why,
        save_dtype,
        save_why,
        facts.stored,
        base,
        ranks,
    )


def bound(loss: LossConfig) -> BoundObjective:
    """The objective that the settings name, with its settings."""
    return BoundObjective(loss.objective, loss.settings)


def reference_source(setup: Setup) -> ModelSource:
    """Where the reference is loaded from; another model must read the same tokens."""
    name = setup.config.model.reference
    if name is None:
        return setup.source
    source = find_model(name, setup.config.hub, setup.config.model.trust_remote_code)
    if load_tokenizer(source).get_vocab() != setup.tokenizer.tokenizer.get_vocab():
        raise ModelError(
            f"the reference {name} has another vocabulary than the model: their tokens cannot be compared."
        )
    return source


def require_sound_models(setup: Setup) -> str:
    """Refuses, before any work, models whose weights could not be trained, or not be compared with.

    Returns:
        Of several ranks, a digest of the models and of the arithmetic: all should have the same.

    Raises:
        ModelError: weights are missing, cut short, of another shape or not finite; or the reference has other tokens.
        ConfigError: a target of the adapter is no layer of the model.
    """
    digest = xxhash.xxh3_128(setup.device.type.encode())

    def see(name: str, tensor: Tensor) -> None:
        if setup.ranks.several:
            digest.update(name.encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)

    require_sound(setup.source, see)
    if setup.source.adapter is None and (model := without_weights(setup.source)):
        if setup.base is not None:
            require_targets(model, setup.config.adapter)
        if setup.config.training.vectors:
            train_steering_vectors(model)
    if (reference := reference_source(setup)) != setup.source:
        require_sound(reference, see)
    digest.update(repr((setup.precision, setup.base, setup.save_dtype)).encode())
    named = [(source, CONFIG) for source in (setup.source, reference)]
    if (adapter := setup.source.adapter) is not None:
        named += [(adapter, ADAPTER), (adapter, ADAPTER_WEIGHTS)]
    for path in (source.file(name) for source, name in named if setup.ranks.several):
        digest.update(b"" if path is None else path.read_bytes())
    return digest.hexdigest()


def prompt_room(setup: Setup) -> int | None:
    """Most tokens of a prompt that leave the model positions for the answer; None where it has no such limit."""
    return None if setup.positions is None else setup.positions - setup.config.comparison.max_new_tokens


def answers_for(setup: Setup) -> AnswerComparison:
    """The comparison that a run's settings describe, in float32: answers are those of the models as they are saved.

    Raises:
        TiltlmError: the judge of answers cannot be had. One that is a Python file is run.
    """
    reward = setup.config.comparison.reward
    return AnswerComparison(
        tokenizer=setup.tokenizer.tokenizer,
        config=setup.config.comparison,
        seed=setup.config.run.seed,
        terminators=frozenset(setup.tokenizer.terminators),
        precision=torch.float32,
        token_budget=setup.config.training.token_budget,
        ranks=setup.ranks,
        reward=None if reward == NONE else pointwise_judge(reward, setup.config.hub),
    )


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type
