"""What is looked at before a run does any work: that nothing of the user's is in its way, and that it will fit."""

from __future__ import annotations

from pathlib import Path

from tiltlm.config import Config
from tiltlm.config.validation import places_read
from tiltlm.judges.choosing import require_reward
from tiltlm.model.embedded import embedded_model
from tiltlm.model.finding import EMBEDDED
from tiltlm.model.memory import checkpoint_bytes
from tiltlm.pipeline.reporter import Reporter
from tiltlm.runs.folder import RunFolder, is_run, require_apart
from tiltlm.storage.cache import cache_folder, writable_cache_folder
from tiltlm.storage.space import folder_bytes, free_bytes, in_words, require_space, weight_bytes
from tiltlm.training.trackers import require_trackers

BESIDES_THE_MODEL = 5_000_000
"""Bytes of a run's other files: tokenizer, pictures, records."""


def before_work(config: Config, reporter: Reporter, goes_on: bool = False, made: RunFolder | None = None) -> None:
    """Refuses a run that would destroy, overwrite or not fit; makes the embedded model if it is asked for.

    Args:
        goes_on: whether the run is there and goes on.
        made: its folder where it was made before, as a recipe makes those of its stages, which read each other's.

    Raises:
        RunError: the run's folder is taken or overlaps what the run reads, or the disk is too full.
        ConfigError: the cache folder cannot be used.
        ModelError: the embedded model cannot be had.
        PackageError: the embedded model, the judge of answers or a tracker needs a package that is not installed.
        TiltlmError: the judge of answers (comparison.reward) cannot be had, or fails when it is tried.
    """
    require_trackers(config.run.trackers)
    require_reward(config.comparison.reward, config.hub)
    directory = Path(config.run.directory)
    folder = directory / config.run.name
    if made is None:
        require_apart(folder, places_read(config))
        if not goes_on:
            RunFolder.require_free(directory, config.run.name, config.run.overwrite)
    writable_cache_folder()
    _require_cache_outside(folder)
    source = prepare_model(config, reporter)
    # What an earlier run leaves free counts too: it is removed before anything large is written.
    given_back = folder_bytes(folder) if config.run.overwrite and is_run(folder) else 0
    weights = weight_bytes(source)
    require_space(folder, weights + BESIDES_THE_MODEL - given_back, "the run with its model", "--run.directory")


def require_fit(weights: int, config: Config, folder: Path, reporter: Reporter) -> None:
    """The same once the model is loaded, which tells of models of the hub too.

    weights: how many are trained; 2 to 4 bytes of each are saved.

    Raises:
        RunError: not even 2 bytes of each fit. Where 4 might not, or checkpoints, a line says so.
    """
    require_space(folder, 2 * weights, "the trained model", "--run.directory")
    free = free_bytes(folder)
    if free < 4 * weights:
        reporter.say(f"  the disk may be too full for the trained model: {in_words(free)} are free in {folder}")
        return
    moving = 4 * weights if config.loss.objective.moves is not None else 0  # the reference's own weights
    one = checkpoint_bytes(weights, config.training.optimizer) + moving
    # Besides those kept there may be the best one, and one that is being written.
    if config.checkpoint.on and free < 4 * weights + (config.checkpoint.keep + 2) * one:
        reporter.say(
            f"  the disk may be too full for checkpoints of {in_words(one)} each (checkpoint.keep): "
            f"{in_words(free)} are free in {folder}"
        )


def prepare_model(config: Config, reporter: Reporter) -> Path:
    """Where the model's files are, if they are on this machine; the embedded model is made on first use."""
    if EMBEDDED in (config.model.path, config.model.reference):
        made = embedded_model(reporter.say)
        if config.model.path == EMBEDDED:
            return made
    path = Path(config.model.path).expanduser()
    if not path.is_dir() and config.hub.folder is not None:
        return Path(config.hub.folder).expanduser() / config.model.path
    return path


def _require_cache_outside(folder: Path) -> None:
    cache, own = cache_folder().resolve(), folder.resolve()
    if cache == own or own in cache.parents:
        require_apart(folder, {"TILTLM_CACHE": cache})
