"""Memory that did not suffice, told as what it is: in which stage, of what, and which settings lower the need."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tiltlm.config import Config
from tiltlm.errors import OutOfMemoryError
from tiltlm.storage.library_errors import is_out_of_memory, memory_asked_for


def _smaller_passes(config: Config) -> list[str]:
    return [f"lower training.micro_batch_tokens (it is {config.training.token_budget}; results stay the same)"]


def _smaller_steps(config: Config) -> list[str]:
    ways = _smaller_passes(config)
    if not config.training.activation_checkpointing:
        ways.append("turn on training.activation_checkpointing (slower; results stay the same)")
    ways.append(f"lower data.max_length (it is {config.data.max_length})")
    if config.training.optimizer != "rmsprop":
        ways.append("take training.optimizer rmsprop, which keeps one number a weight and not two")
    return ways


def _shorter_answers(config: Config) -> list[str]:
    own = config.comparison
    return [
        f"lower comparison.samples (it is {own.samples}) or comparison.max_new_tokens (it is {own.max_new_tokens})",
        "leave it out: --comparison.prompts 0",
    ]


_LOWERS: dict[str, Callable[[Config], list[str]]] = {
    "data": lambda config: ["lower data.max_train_pairs"],
    "training": _smaller_steps,
    "comparison": _shorter_answers,
    "report": lambda config: [],
}
"""What lowers the need, by stage; in the others, which score examples, smaller passes do."""


def _nothing() -> str:
    return ""


@contextmanager
def memory_explained(
    config: Config, stage: Callable[[], str], estimate: Callable[[], str] = _nothing
) -> Iterator[None]:
    """Within, memory that does not suffice is an error for the person who runs the program.

    Args:
        stage: says which stage is running.
        estimate: says what would take less, and how much; it is asked after what failed was let go of.

    Raises:
        OutOfMemoryError: in place of what the library raised. What the failed work held is let go of first, as the
            weights must still be saved.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError, ImportError) as error:
        if not is_out_of_memory(error):
            raise
        message = out_of_memory(config, stage(), error)
        release(error)
        raise OutOfMemoryError(message + _estimated(estimate)) from None


def _estimated(estimate: Callable[[], str]) -> str:
    """The sentence of an estimate; none where there is not even the memory for one."""
    try:
        words = estimate()
    except (MemoryError, RuntimeError, OSError, ImportError) as error:
        if not is_out_of_memory(error):
            raise
        return ""
    return f" {words}" if words else ""


def out_of_memory(config: Config, stage: str, error: BaseException) -> str:
    """What ran out, in which stage, and what to do, in a sentence or two."""
    device = "GPU" if "CUDA" in f"{type(error)} {error}" or "CUBLAS" in str(error) else "machine"
    asked = memory_asked_for(error)
    tried = f" when {asked} more were asked for" if asked else ""
    ways = [*_LOWERS.get(stage, _smaller_passes)(config), "take a smaller model", "or free memory"]
    return f"the {device}'s memory did not suffice in the stage `{stage}`{tried}. To mend it: {', '.join(ways)}."


def release(error: BaseException) -> None:
    """Lets go of what the frames of a failed call hold: with them, the activations of the step that did not fit."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__context__
