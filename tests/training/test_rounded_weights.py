"""What bfloat16 makes of the weights is kept no longer than it is wanted."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_folders import save_tiny
from tiny_runs import bound, examples_for, tiny_model

from tiltlm.evaluation.generation import GenerationSettings, generate_answers, greedy
from tiltlm.model.finding import ModelSource
from tiltlm.model.loading import load_tokenizer
from tiltlm.model.scorer import Scorer
from tiltlm.model.weights import load_model
from tiltlm.plan.packing import plan
from tiltlm.training.losses import backward


def kept_in(model: torch.nn.Module) -> list[bool]:
    """Whether rounded weights are kept to the end of the context, each time that the module is at work."""
    seen: list[bool] = []
    model.register_forward_pre_hook(lambda *given: seen.append(torch.is_autocast_cache_enabled()))
    return seen


def test_training_leaves_none_behind() -> None:
    """A layer that is recomputed would otherwise have its own until all layers are through."""
    scorer = Scorer(tiny_model("gpt2", torch.float32))
    columns = examples_for(bound("simpo").needs, 2)
    seen = kept_in(scorer.model.base_model)
    backward(scorer, plan(columns, range(2), 64, scorer.layout), bound("simpo"), torch.bfloat16, lambda losses: None)
    assert seen and not any(seen)


def test_answers_round_them_once(tmp_path: Path) -> None:
    source = ModelSource(str(save_tiny(tmp_path / "model")), True, False)
    model, tokenizer = load_model(source, torch.device("cpu")), load_tokenizer(source)
    seen = kept_in(model.base_model)
    settings = GenerationSettings(3, 0)
    generate_answers(model, tokenizer, [[5, 6]], [greedy()], settings, frozenset({1}), torch.bfloat16)
    assert seen and all(seen)
