"""The model card: how a trained model was made, in the form the Hugging Face hub shows."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path

from tiltlm.config import config_from_dict, settings_table
from tiltlm.model.finding import EMBEDDED
from tiltlm.objectives.interface import NOUNS
from tiltlm.report.verdict import verdict
from tiltlm.runs.outcomes import Summary
from tiltlm.runs.run_files import RunFiles
from tiltlm.text.masking import masked
from tiltlm.text.visible import visible


def model_card(run: RunFiles, summary: Summary) -> str:
    """Markdown with the hub's front matter."""
    config, environment = config_from_dict(run.settings), run.environment
    embedded = config.model.path == EMBEDDED
    base = "HuggingFaceTB/SmolLM2-135M-Instruct" if embedded else config.model.path
    imitates = config.loss.objective.needs.unit == "demonstration"
    tags = f"tags: [{'sft' if imitates else 'dpo'}, tiltlm]"
    front = ["library_name: transformers", "pipeline_tag: text-generation", tags]
    if embedded or not Path(base).exists():
        front.append(f"base_model: {base}")
    if embedded:
        front.append("license: apache-2.0")
    training, objective = config.training, config.loss.objective
    pairs = f"{NOUNS[objective.needs.unit]}s"
    own = [f"{option} {value}" for option, value in dataclasses.asdict(config.loss.settings).items()]
    facts = {
        "Base model": base + (" (weights from a 4-bit GGUF file)" if embedded else ""),
        "Reference": (config.model.reference or "the base model") if objective.needs.reference else "none",
        "Objective": f"{', '.join([config.loss.name, *own])}",
        "Data": f"{summary.train_pairs} {pairs} for training, {summary.eval_pairs} held out, from "
        + ", ".join(source.name for source in run.data.sources),
        "Optimizer": f"{training.optimizer}, learning rate {training.learning_rate}, {training.schedule} after "
        f"{training.warmup_steps} warm-up steps, {training.batch_pairs} {pairs} a step, {summary.steps} steps",
        "Arithmetic": environment.precision or "",
        "Weights": f"saved in {summary.saved_as}" if summary.saved_as else "",
        "Versions": ", ".join(f"{name} {number}" for name, number in environment.versions.items() if number),
    }
    lines = ["---", *front, "---", "", f"# {summary.run}", ""]
    lines += [
        f"Trained on {'demonstrations' if imitates else 'preferences'} by tiltlm. {objective.what}",
        *([f"Source of the objective: <{objective.source}>."] if objective.source else []),
        "",
    ]
    lines += [f"- **{name}**: {value}" for name, value in facts.items()]
    lines += ["", "## What training showed", "", *(f"- {sentence}" for sentence in verdict(summary))]
    lines += ["", "## How to repeat it", "", "```", shlex.join(environment.command), "```", ""]
    lines += ["## Settings", "", "```json", json.dumps(settings_table(config), indent=1), "```", ""]
    return visible(masked("\n".join(lines)))
