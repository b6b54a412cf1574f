"""How many tokens a forward pass takes at most, where that is left to the program: what the memory there is allows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from transformers import PreTrainedConfig

from tiltlm.config import Config
from tiltlm.config.resuming import Resume
from tiltlm.config.sections import USUAL_TOKENS
from tiltlm.config.tables import settings_of_run
from tiltlm.data.preparation import PreparedData
from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.model.available_memory import available_to_a_rank
from tiltlm.model.memory import BESIDES, step_memory
from tiltlm.pipeline.reporter import Reporter
from tiltlm.pipeline.setup import Setup
from tiltlm.pipeline.sizing.run_memory import chosen_way, layout_for, model_configuration, run_memory
from tiltlm.plan.batches import MicroBatch
from tiltlm.plan.packing import plan
from tiltlm.plan.row_layout import Layout
from tiltlm.storage.space import in_words, weight_bytes

MOST = {"cpu": USUAL_TOKENS, "cuda": 4 * USUAL_TOKENS}
"""Tokens beyond which more at once are no faster, by kind of device; measured on a CPU only."""
LEAST = 256
"""Fewer would spend more on the weights than on the tokens."""
_LOOKED_AT = 64
"""Examples among which the largest is looked for: those with the most tokens, before prompts are shared."""
_AMPLE = 2
"""How many times what a step takes by a rule of thumb must be there for the step not to be looked at."""


@dataclass(frozen=True, slots=True)
class Budget:
    """So many tokens at most, and why. fits: whether a step over them does; None where that is not known."""

    tokens: int
    why: str
    fits: bool | None = True


def with_budget(setup: Setup, data: PreparedData, reporter: Reporter) -> Setup:
    """The settings with a number for training.micro_batch_tokens: theirs, or one that is chosen here, and said."""
    if setup.config.training.micro_batch_tokens != "auto":
        return setup
    found = setup.ranks.from_first(lambda: choose_budget(setup, data))
    reporter.say(f"  at most {found.tokens:,} tokens in a forward pass: {found.why} (training.micro_batch_tokens)")
    return replace(setup, config=with_tokens(setup.config, found.tokens))


def with_tokens(config: Config, tokens: int) -> Config:
    """The settings with another number for training.micro_batch_tokens."""
    return replace(config, training=replace(config.training, micro_batch_tokens=tokens))


def as_it_began(config: Config, resume: Resume) -> Config:
    """The settings of a run that goes on, with the number that was chosen when it began: another cut into micro-batches
    has other last digits."""
    before = settings_of_run(resume.run / "config.json")
    if before is None or config.training.micro_batch_tokens != "auto":
        return config
    return with_tokens(config, before.training.token_budget)


def choose_budget(setup: Setup, data: PreparedData) -> Budget:
    """The most tokens that bring speed, or half of them, a quarter, and so on, until a step fits.

    An example that is larger is computed at once anyway, so never fewer than the largest example has.
    """
    there = available_to_a_rank(setup.ranks, setup.device)
    usual = MOST.get(setup.device.type, USUAL_TOKENS)
    model = model_configuration(setup)
    upper = max(_most_columns(columns) for columns in (data.train, data.eval))
    if upper <= usual and there is not None and _is_ample(setup, model, usual, there):
        return Budget(usual, "more are no faster")
    layout = layout_for(setup, model)
    longest = max(largest_example(columns, layout) for columns in (data.train, data.eval))
    most = max(usual, longest)
    many = "more are no faster" if most > longest else "the longest example has as many"
    if there is None:
        return Budget(most, f"{many}, and how much memory is available is not known", None)
    tokens, way = most, chosen_way(setup)
    while True:
        batch = heaviest_batch(data.train, setup.config.training.batch_pairs, tokens, layout)
        needed = run_memory(setup, step_memory(model, way, batch, setup.device))
        if needed.fits(there):
            return Budget(tokens, many if tokens == most else f"what fits in the {in_words(there)} available")
        if tokens <= max(longest, LEAST):
            words = f"memory may not suffice: about {in_words(needed.most)} are needed, {in_words(there)} available"
            return Budget(tokens, words, False)
        tokens = max(tokens // 2, longest, LEAST)


def largest_example(columns: TokenColumns, layout: Layout) -> int:
    """Columns of the largest example, about: as large as one is laid out alone."""
    alone = plan(columns, _by_size(columns)[:_LOOKED_AT], 1, layout)
    return max(batch.tokens_RL.numel() for batch in alone.micro_batches)


def heaviest_batch(columns: TokenColumns, examples: int, tokens: int, layout: Layout) -> MicroBatch:
    """The largest micro-batch of a step that has the largest of the examples."""
    made = plan(columns, _by_size(columns)[:examples], tokens, layout)
    return max(made.micro_batches, key=lambda batch: (batch.tokens_RL.numel(), len(batch.score_at_S)))


def _by_size(columns: TokenColumns) -> np.ndarray:
    return np.argsort(-np.diff(columns.bounds[columns.members]), kind="stable")


def _most_columns(columns: TokenColumns) -> int:
    """No example is laid out in more columns, prompts shared or each sequence padded to the longest of the example."""
    lengths, members = np.diff(columns.bounds), columns.members
    return int((np.maximum.reduceat(lengths, members[:-1]) * np.diff(members)).max())


def _is_ample(setup: Setup, model: PreTrainedConfig, tokens: int, there: int) -> bool:
    """Whether so much memory is there that nobody needs to know how much a step takes: it is then begun at once.

    By a rule of thumb: 16 bytes of each weight, and of each token, in each layer, 8 numbers of the hidden size and 3 of
    the inner one.
    """
    text = model.get_text_config()
    sizes = [getattr(text, name, None) for name in ("num_hidden_layers", "hidden_size")]
    files = weight_bytes(Path(setup.source.location))
    if not files or any(not isinstance(size, int) for size in sizes) or getattr(text, "num_experts", None):
        return False
    layers, hidden = (int(size) for size in sizes if size is not None)
    inner = getattr(text, "intermediate_size", None) or 4 * hidden
    stored = setup.stored.itemsize if setup.stored is not None else 2
    thumb = BESIDES + 16 * files // stored + 4 * tokens * layers * (8 * hidden + 3 * inner)
    return _AMPLE * thumb <= there
