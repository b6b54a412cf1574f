"""The commands: what each does with its arguments; errors in a line, exit codes.

What a command needs is imported when it is run: help does not wait for settings, nor mistakes in them for PyTorch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tiltlm import __version__
from tiltlm.cli.complaints import complain, complain_of_rank, no_command
from tiltlm.cli.descriptions import show_help
from tiltlm.cli.imports import importing
from tiltlm.cli.launched import is_first_rank, one_of_several
from tiltlm.cli.machine_errors import MACHINE_ERRORS, in_words
from tiltlm.cli.named_runs import RUNS, existing_run, is_folder
from tiltlm.cli.output import WatchedOutput, inert_errors, watched_output
from tiltlm.cli.run_commands import export_run, merge_run, report_run
from tiltlm.errors import ConfigError, TiltlmError
from tiltlm.model.kept_memory import keep_memory
from tiltlm.storage.cache import cache_folder
from tiltlm.text.visible import visible

CLOSED_PIPE = 141
"""The exit code of a program that a closed pipe ended, as shells report it: 128 and the signal's number."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0 done, 1 failed with a message, 2 misused, 130 interrupted.

    141: the program that read the output has closed it.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    code = 1
    try:
        with watched_output() as output, inert_errors():
            code = _run(words, output)
    except (OSError, SystemExit):  # the latter after help was shown, or should have been
        if output.failure is None:
            raise
    if output.failure is None:
        return code
    if isinstance(output.failure, BrokenPipeError):
        return CLOSED_PIPE
    complain(f"standard output cannot be written: {output.failure.strerror}.")
    return 1


def _run(words: list[str], output: WatchedOutput) -> int:
    if words[:1] == ["--version"]:
        print(__version__)
        return 0
    if not words or words[0] in ("-h", "--help", "help"):
        with contextlib.nullcontext() if words else contextlib.redirect_stdout(sys.stderr):
            show_help()
        return 0 if words else 2
    command = COMMANDS.get(words[0])
    if command is None:
        complain(no_command(words[0], list(COMMANDS)))
        return 2
    if one_of_several() and command is not _train:
        if is_first_rank():
            complain(f"`tiltlm {words[0]}` is a command of one process: start it without torchrun.")
        return 2
    # What these come to lies in a folder: it is not lost because nobody reads along any more.
    output.carry_on = command in (_train, _sweep, _bench, _sample)
    if command in (_train, _sweep, _plan):
        keep_memory()
    try:
        return command(words[1:])
    except TiltlmError as error:
        complain_of_rank(str(error))
        return 2 if isinstance(error, ConfigError) else 1
    except MACHINE_ERRORS as error:
        of_output = output.failure is not None and not output.carry_on
        message = None if of_output else in_words(error)
        if message is None:
            raise
        complain_of_rank(message)
        return 1
    except KeyboardInterrupt:
        if is_first_rank():
            complain("interrupted; what was written so far is kept.", before="\n")
        return 130


def _train(words: Sequence[str]) -> int:
    with importing():
        from tiltlm.cli.command_line import parse
        from tiltlm.runs.folder import free_name

    parsed = parse(words)
    config, note = parsed.config, None
    if not (parsed.name_given or parsed.auto_resume or config.run.overwrite or one_of_several()):
        name = free_name(Path(config.run.directory), config.run.name)
        if name != config.run.name:
            note = (
                f"{Path(config.run.directory) / config.run.name} is taken, so this run is called {name} (--run.name)."
            )
            config = dataclasses.replace(config, run=dataclasses.replace(config.run, name=name))
    with importing():
        from rich.console import Console

        from tiltlm.cli.console import ConsoleReporter
        from tiltlm.pipeline.stages.recipe_run import train_recipe

    reporter = ConsoleReporter() if is_first_rank() else ConsoleReporter(Console(quiet=True))
    if note is not None:
        reporter.say(note)
    recipe = parsed.recipe.over(config)
    command = ("tiltlm", "train", *words)
    run = train_recipe(recipe, command, reporter, resume=parsed.resume, auto_resume=parsed.auto_resume)
    return 0 if run.summary.completed else 130


def _sweep(words: Sequence[str]) -> int:
    from tiltlm.cli.sweep_words import parse_sweep

    parsed = parse_sweep(words)
    with importing():
        from tiltlm.cli.console import ConsoleReporter
        from tiltlm.cli.sweep_command import run_sweep

    return run_sweep(parsed, ("tiltlm", "sweep", *words), ConsoleReporter())


def _compare(words: Sequence[str]) -> int:
    from tiltlm.cli.arguments import Compare
    from tiltlm.cli.command_line import parse_simple

    arguments = parse_simple(Compare, words, {"prompt": tuple[str, ...], "trust_remote_code": bool}, positional=1)
    prompts = [prompt for given in arguments.prompt for prompt in given]
    if not prompts and "--prompt" in words:
        raise ConfigError("--prompt needs a text: the prompt to answer.")
    for prompt in prompts:
        if arguments.run is None and prompt and is_folder(prompt):
            raise ConfigError(f"`{prompt}` is a folder, and was taken for a prompt: name the run before --prompt.")
    with importing():
        from tiltlm.cli.compare_command import compare_run
        from tiltlm.cli.console import ConsoleReporter
        from tiltlm.runs.run_files import newest_comparable

    run = arguments.run or newest_comparable(RUNS, anew=bool(prompts))
    compare_run(existing_run(run), prompts, arguments.trust_remote_code, ConsoleReporter())
    return 0


def _objectives(words: Sequence[str]) -> int:
    from tiltlm.cli.arguments import Objectives
    from tiltlm.cli.command_line import parse_simple

    arguments = parse_simple(Objectives, words, {}, positional=1)
    from tiltlm.cli.objectives_command import show_objectives

    show_objectives(arguments.name)
    return 0


def _plan(words: Sequence[str]) -> int:
    from tiltlm.cli.plan_words import parse_plan

    parsed = parse_plan(words)
    with importing():
        from tiltlm.cli.console import ConsoleReporter
        from tiltlm.cli.plan_command import show_plan
        from tiltlm.pipeline.preflight import prepare_model

    reporter = ConsoleReporter()
    prepare_model(parsed.recipe.base, reporter)
    if parsed.recipe.base.rounds.count:
        reporter.say(
            "note: the pairs of [rounds] are not there yet, nor how many there will be: this is one training on the "
            "pairs of data.train."
        )
    for name, config in parsed.recipe.seen_from_the_start():
        if name is not None:
            reporter.say(f"Stage `{name}`")
        show_plan(config, reporter, parsed.arguments)
    return 0


def _bench(words: Sequence[str]) -> int:
    from tiltlm.cli.bench_words import parse_bench

    parsed = parse_bench(words)
    with importing():
        from tiltlm.cli.bench_command import show_benchmark
        from tiltlm.cli.console import ConsoleReporter

    show_benchmark(parsed, ("tiltlm", "bench", *words), ConsoleReporter())
    return 0


def _sample(words: Sequence[str]) -> int:
    from tiltlm.cli.sample_words import parse_sample

    arguments = parse_sample(words)
    with importing():
        from tiltlm.cli.console import ConsoleReporter
        from tiltlm.cli.sample_command import sample

    sample(arguments, ConsoleReporter())
    return 0


def _pair(words: Sequence[str]) -> int:
    from tiltlm.cli.sample_words import parse_pair

    arguments = parse_pair(words)
    from tiltlm.cli.pair_command import pair

    pair(arguments)
    return 0


def _cache(words: Sequence[str]) -> int:
    from tiltlm.cli.arguments import Cache, Cleared
    from tiltlm.cli.command_line import parse_simple

    arguments = parse_simple(Cache, words, {"clear": Cleared}, positional=0)
    from tiltlm.storage.cache_contents import clear_cache, describe_cache

    for line in clear_cache(cache_folder(), arguments.clear) if arguments.clear else describe_cache(cache_folder()):
        print(visible(line), flush=True)
    return 0


def _convert_config(words: Sequence[str]) -> int:
    from tiltlm.cli.convert_command import run_convert

    return run_convert(words)


def _frontier(words: Sequence[str]) -> int:
    from tiltlm.cli.frontier_command import run_frontier

    return run_frontier(words)


def _judge(words: Sequence[str]) -> int:
    from tiltlm.cli.judge_command import run_judge

    return run_judge(words)


def _inspect(words: Sequence[str]) -> int:
    from tiltlm.cli.command_line import parse_inspect

    arguments = parse_inspect(words)
    with importing():
        from tiltlm.cli.console import ConsoleReporter
        from tiltlm.cli.inspect_command import inspect_data
        from tiltlm.pipeline.preflight import prepare_model

    reporter = ConsoleReporter()
    prepare_model(arguments.settings, reporter)
    inspect_data(arguments.settings, arguments.report, reporter)
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": _train,
    "sweep": _sweep,
    "compare": _compare,
    "report": report_run,
    "inspect": _inspect,
    "export": export_run,
    "merge": merge_run,
    "plan": _plan,
    "bench": _bench,
    "frontier": _frontier,
    "sample": _sample,
    "judge": _judge,
    "pair": _pair,
    "objectives": _objectives,
    "cache": _cache,
    "convert-config": _convert_config,
}

if __name__ == "__main__":
    sys.exit(main())
