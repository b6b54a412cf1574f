"""What would take less memory, and how much less: computed as a run's own need is, for `tiltlm plan` and errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedConfig

from tiltlm.data.tokens.token_columns import TokenColumns
from tiltlm.model.available_memory import available_to_a_rank
from tiltlm.model.frozen import Base
from tiltlm.model.memory import Way, fake_batch, step_memory
from tiltlm.pipeline.setup import Setup
from tiltlm.pipeline.sizing.run_memory import RunMemory, chosen_way, layout_for, model_configuration, run_memory
from tiltlm.pipeline.sizing.token_budget import LEAST, heaviest_batch, largest_example
from tiltlm.plan.batches import MicroBatch
from tiltlm.plan.row_layout import Layout
from tiltlm.storage.space import in_words


@dataclass(frozen=True, slots=True)
class Remedy:
    """Settings to change, in words, and the memory of a run with them. results: what becomes of the results."""

    change: str
    memory: RunMemory
    results: str

    @property
    def in_words(self) -> str:
        return f"{self.change} (about {in_words(self.memory.most)}; {self.results})"


SAME, OTHERS = "results stay the same", "other results"


def remedies(setup: Setup, columns: TokenColumns) -> tuple[Remedy, ...]:
    """What takes less than the settings do, what leaves results as they are first; empty where nothing does."""
    model = model_configuration(setup)
    layout = layout_for(setup, model)
    own = _needs(setup, model, chosen_way(setup), _heaviest(setup, columns, setup.config.training.token_budget, layout))
    found = []
    for change, results, way, batch in _changes(setup, columns, layout):
        memory = _needs(setup, model, way, batch)
        if memory.most < own.most:
            found.append(Remedy(change, memory, results))
    return tuple(found)


def in_a_sentence(setup: Setup, columns: TokenColumns) -> str:
    """What the settings take, and what takes less, for the error of a step that did not fit."""
    found = remedies(setup, columns)
    there = available_to_a_rank(setup.ranks, setup.device)
    if not found:
        return ""
    known = "" if there is None else f" ({in_words(there)} are available)"
    ways = ", ".join(f"{one.change} {in_words(one.memory.most)}" for one in found)
    return f"By estimate, peaks of memory would be{known}: {ways}; `tiltlm plan` shows more."


def _needs(setup: Setup, model: PreTrainedConfig, way: Way, batch: MicroBatch) -> RunMemory:
    return run_memory(setup, step_memory(model, way, batch, setup.device))


def _heaviest(setup: Setup, columns: TokenColumns, tokens: int, layout: Layout) -> MicroBatch:
    return heaviest_batch(columns, setup.config.training.batch_pairs, tokens, layout)


def _changes(setup: Setup, columns: TokenColumns, layout: Layout) -> Iterator[tuple[str, str, Way, MicroBatch]]:
    """Each change in words, what becomes of the results, and the step that it leaves."""
    way, tokens = chosen_way(setup), setup.config.training.token_budget
    longest = largest_example(columns, layout)
    least = max(LEAST, longest)
    batches = {tokens: _heaviest(setup, columns, tokens, layout)}
    for fewer in sorted({max(tokens // 2, least), max(tokens // 4, least)} - {tokens}, reverse=True):
        if fewer < tokens:
            batches[fewer] = _heaviest(setup, columns, fewer, layout)
            yield f"training.micro_batch_tokens {fewer}", SAME, way, batches[fewer]
    fewest, again = min(batches), replace(way, activation_checkpointing=True)
    if not way.activation_checkpointing:
        yield "training.activation_checkpointing", f"{SAME}, slower", again, batches[tokens]
        if fewest < tokens:
            both = f"training.activation_checkpointing and training.micro_batch_tokens {fewest}"
            yield both, f"{SAME}, slower", again, batches[fewest]
    if way.optimizer != "rmsprop":
        yield "training.optimizer rmsprop", OTHERS, replace(way, optimizer="rmsprop"), batches[tokens]
    for change, base in _smaller_bases(setup, way).items():
        yield change, OTHERS, replace(way, base=base), batches[tokens]
    length = setup.config.data.max_length // 2
    half = fake_batch(max(longest // 2, 1), 1, max(len(batches[fewest].score_at_S) // 2, 1))
    yield f"data.max_length {length} and training.micro_batch_tokens {max(longest // 2, LEAST)}", OTHERS, way, half


def _smaller_bases(setup: Setup, way: Way) -> dict[str, Base]:
    """Adapters, or a smaller base for the one there is."""
    narrow = torch.bfloat16 if setup.precision is torch.bfloat16 else torch.float32
    adapter = "" if way.base is not None else "adapter.kind lora, "
    found = {} if way.base is not None else {"adapter.kind lora": Base()}
    if narrow is torch.bfloat16 and (way.base is None or way.base == Base()):
        found[f"{adapter}adapter.base_dtype bfloat16"] = Base("none", narrow)
    if way.base is None or way.base.quantise == "none":
        found[f"{adapter}adapter.quantise nf4"] = Base("nf4", narrow)
    return found
