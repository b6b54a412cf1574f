"""The card of a trained model says how it was made, whatever the objective."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_runs import write_model, write_pairs

import tiltlm


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        (
            "sigmoid",
            [
                "Reference**: the base model",
                "Objective**: sigmoid, beta 0.1",
                "4 pairs a step",
                "DPO:",
                "abs/2305.18290>",
            ],
        ),
        (
            "simpo",
            [
                "Reference**: none",
                "Objective**: simpo, beta 2.0, gamma_beta_ratio",
                "4 pairs a step",
                "SimPO:",
                "abs/2405.14734>",
            ],
        ),
        (
            "kto",
            [
                "Reference**: the base model",
                "Objective**: kto, beta 0.1",
                "4 examples a step",
                "KTO:",
                "abs/2402.01306>",
            ],
        ),
    ],
)
def test_the_card_follows_the_objective(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, facts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    write_model(Path("tiny"))
    write_pairs(Path("pairs.jsonl"), 24)
    run = tiltlm.train(
        {
            "model": {"path": "tiny", "precision": "float32"},
            "loss": {"name": name},
            "training": {"max_steps": 1, "batch_pairs": 4},
            "comparison": {"prompts": 0},
        },
        train="pairs.jsonl",
    )
    card = (run.model / "README.md").read_text(encoding="utf-8")
    assert all(fact in card for fact in facts), card
