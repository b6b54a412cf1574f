"""The model card: how a trained model was made, in the form the Hugging Face hub shows."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from tiltlm.config import AdapterConfig, config_from_dict, settings_table
from tiltlm.model.finding import EMBEDDED
from tiltlm.objectives.interface import NOUNS
from tiltlm.report import learnt_from
from tiltlm.report.objective_facts import known_objective
from tiltlm.report.verdict import verdict
from tiltlm.runs.outcomes import Summary
from tiltlm.runs.run_files import RunFiles
from tiltlm.text.masking import masked
from tiltlm.text.visible import visible

_VECTORS = "steering vectors alone, which are biases of this model; all else is the base model's"


def model_card(run: RunFiles, summary: Summary, adapter: bool = False) -> str:
    """Markdown with the hub's front matter.

    adapter: whether the folder holds an adapter, which needs its base model.
    """
    config, environment = config_from_dict(run.settings), run.environment
    began = summary.earlier[0].model if summary.earlier else config.model.path
    entering = "the model after those" if summary.earlier else "the base model"
    embedded = began == EMBEDDED
    base = "HuggingFaceTB/SmolLM2-135M-Instruct" if embedded else began
    imitates = learnt_from.imitates(summary)
    tags = ["sft" if imitates else "dpo", "tiltlm", *(["lora"] if adapter else [])]
    front = [
        f"library_name: {'peft' if adapter else 'transformers'}",
        "pipeline_tag: text-generation",
        f"tags: [{', '.join(tags)}]",
    ]
    if embedded or not Path(base).exists():
        front.append(f"base_model: {base}")
    if embedded:
        front.append("license: apache-2.0")
    training, objective = config.training, known_objective(config.loss.name, run.objective)
    pairs = f"{NOUNS['pair' if objective is None else objective.needs.unit]}s"
    own = [f"{option} {value}" for option, value in config.loss.written().items() if option != "name"]
    has_reference = objective is None or objective.needs.reference
    facts = {
        "Base model": base + (" (weights from a 4-bit GGUF file)" if embedded else ""),
        "Stages before": ", ".join(f"{stage.name} ({stage.loss}, {stage.steps} steps)" for stage in summary.earlier),
        "Adapter": _adapter(config.adapter) if adapter else "",
        "Trained": _VECTORS if training.vectors else "",
        "Reference": (config.model.reference or entering) if has_reference else "none",
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
        f"Trained on {'demonstrations' if imitates else 'preferences'} by tiltlm. "
        + (objective.what if objective is not None else ""),
        *([f"Source of the objective: <{objective.source}>."] if objective is not None and objective.source else []),
        "",
    ]
    lines += [f"- **{name}**: {value}" for name, value in facts.items() if value]
    lines += ["", "## What training showed", "", *(f"- {sentence}" for sentence in verdict(summary))]
    lines += ["", "## How to repeat it", "", "```", shlex.join(environment.command), "```", ""]
    lines += ["## Settings", "", "```json", json.dumps(settings_table(config), indent=1), "```", ""]
    return visible(masked("\n".join(lines)))


def _adapter(settings: AdapterConfig) -> str:
    kept = "" if settings.quantise == "none" else f", on the base model in {settings.quantise}"
    if settings.kind == "none":
        return f"an earlier one, gone on with{kept}"
    return f"{settings.kind}, rank {settings.rank}, alpha {settings.alpha:g}{kept}"
