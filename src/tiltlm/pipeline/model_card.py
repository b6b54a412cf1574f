"""The model card: how a trained model was made, in the form the Hugging Face hub shows."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from tiltlm.config import config_from_dict, settings_table
from tiltlm.model.finding import EMBEDDED
from tiltlm.report.objective_facts import known_objective
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
    front = ["library_name: transformers", "pipeline_tag: text-generation", "tags: [dpo, tiltlm]"]
    if embedded or not Path(base).exists():
        front.append(f"base_model: {base}")
    if embedded:
        front.append("license: apache-2.0")
    training, objective = config.training, known_objective(config.loss.name, run.objective)
    pairs = "pairs" if objective is None or objective.needs.unit == "pair" else "examples"
    own = [f"{option} {value}" for option, value in config.loss.written().items() if option != "name"]
    has_reference = objective is None or objective.needs.reference
    facts = {
        "Base model": base + (" (weights from a 4-bit GGUF file)" if embedded else ""),
        "Reference": (config.model.reference or "the base model") if has_reference else "none",
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
        f"Trained on preferences by tiltlm. {objective.what if objective is not None else ''}".rstrip(),
        *([f"Source of the objective: <{objective.source}>."] if objective is not None and objective.source else []),
        "",
    ]
    lines += [f"- **{name}**: {value}" for name, value in facts.items()]
    lines += ["", "## What training showed", "", *(f"- {sentence}" for sentence in verdict(summary))]
    lines += ["", "## How to repeat it", "", "```", shlex.join(environment.command), "```", ""]
    lines += ["## Settings", "", "```json", json.dumps(settings_table(config), indent=1), "```", ""]
    return visible(masked("\n".join(lines)))
