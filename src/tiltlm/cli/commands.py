"""The commands."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from tiltlm import __version__
from tiltlm.cli.command_line import check_flags, is_flag, parse, parse_config
from tiltlm.cli.machine_errors import MACHINE_ERRORS, in_words
from tiltlm.cli.output import WatchedOutput, watched_output
from tiltlm.config.help_texts import explain
from tiltlm.config.suggestions import nearest
from tiltlm.errors import ConfigError, RunError, TiltlmError
from tiltlm.runs.folder import free_name
from tiltlm.storage.cache import cache_folder
from tiltlm.text.masking import masked
from tiltlm.text.visible import visible

USAGE = """\
usage: tiltlm COMMAND ...

  tiltlm train [CONFIG.toml] [--section.option value ...]   read, train, compare, report; no arguments: the demo
  tiltlm compare [RUN] [--prompt TEXT ...]                  answers before and after training, side by side
  tiltlm report RUN                                         rebuild the pictures and the page from the run's files
  tiltlm inspect DATA [--section.option value ...]          what is in my data, before I train
  tiltlm cache [--clear reference|tokens|...|all]           what is kept between runs, where, and how large

Each command explains itself: tiltlm COMMAND --help
"""

INSPECT_HELP = """\
Show what is in preference data, before training on it.

usage: tiltlm inspect DATA [--section.option value ...]

DATA is a file, a folder or a hub dataset id. The options are those of `tiltlm train`; --model.path names the model
whose tokenizer counts, --report FILE.json keeps the whole account.
"""

Arguments = TypeVar("Arguments")

RUNS = Path("runs")
CLOSED_PIPE = 141
"""The exit code of a program that a closed pipe ended, as shells report it: 128 and the signal's number."""


@dataclass(frozen=True)
class CompareArguments:
    """Answers before and after training, side by side: those recorded, or new ones to prompts of your own."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """The run's folder; the newest run in runs/ that can be compared if none is given."""
    prompt: tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]] = ()
    """Prompts to answer now; may be given several times. Written as the training data was: as a chat if it was
    chats, else verbatim."""


@dataclass(frozen=True)
class ReportArguments:
    """Rebuild training_metrics.png, comparison.md and report.html from the files of a run."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""


@dataclass(frozen=True)
class CacheArguments:
    """Show what is kept between runs: where it lies, what it is, how large; or remove it."""

    clear: Literal["reference", "tokens", "models", "all"] | None = None
    """Remove reference log-probabilities, the converted embedded model, or both. What is needed is made again."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0 done, 1 failed with a message, 2 misused, 130 interrupted.

    141: the program that read the output has closed it.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    code = 1
    try:
        with watched_output() as output:
            code = _run(words, output)
    except (OSError, SystemExit):  # the latter after help was shown, or should have been
        if output.failure is None:
            raise
    if output.failure is None:
        return code
    if isinstance(output.failure, BrokenPipeError):
        return CLOSED_PIPE
    _complain(f"standard output cannot be written: {output.failure.strerror}.")
    return 1


def _run(words: list[str], output: WatchedOutput) -> int:
    if words[:1] == ["--version"]:
        print(__version__)
        return 0
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="", file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    command = COMMANDS.get(words[0])
    if command is None:
        _complain(_no_command(words[0]))
        return 2
    # A run's result lies in its folder: it is not lost because nobody reads along any more.
    output.carry_on = command is _train
    try:
        return command(words[1:])
    except TiltlmError as error:
        _complain(str(error))
        return 2 if isinstance(error, ConfigError) else 1
    except MACHINE_ERRORS as error:
        of_output = output.failure is not None and not output.carry_on
        message = None if of_output else in_words(error)
        if message is None:
            raise
        _complain(message)
        return 1
    except KeyboardInterrupt:
        _complain("interrupted; what was written so far is kept.", before="\n")
        return 130


def _complain(message: str, before: str = "") -> None:
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError):  # there is nowhere left to say it
        print(f"{before}tiltlm: {visible(masked(message))}", file=sys.stderr, flush=True)


def _no_command(word: str) -> str:
    near = nearest(word, list(COMMANDS))
    if near is None and Path(word).exists():
        return f"there is no command `{word}`. To look at data: tiltlm inspect {word}"
    hint = f"Did you mean `tiltlm {near}`?" if near else f"There are: {', '.join(COMMANDS)}."
    return f"there is no command `{word}`. {hint}"


def _train(words: Sequence[str]) -> int:
    parsed = parse(words)
    config, note = parsed.config, None
    if not parsed.name_given and not config.run.overwrite:
        name = free_name(Path(config.run.directory), config.run.name)
        if name != config.run.name:
            note = (
                f"{Path(config.run.directory) / config.run.name} is taken, so this run is called {name} (--run.name)."
            )
            config = dataclasses.replace(config, run=dataclasses.replace(config.run, name=name))
    # Imported here, so that help and mistakes in options do not wait for PyTorch.
    from tiltlm.console import Reporter
    from tiltlm.pipeline.training_run import train

    reporter = Reporter()
    if note is not None:
        reporter.say(note)
    summary = train(config, ("tiltlm", "train", *words), reporter)
    return 0 if summary.completed else 130


def _compare(words: Sequence[str]) -> int:
    arguments = _simple(CompareArguments, words, {"prompt": tuple[str, ...]}, "tiltlm compare", positional=1)
    prompts = [prompt for given in arguments.prompt for prompt in given]
    if not prompts and "--prompt" in words:
        raise ConfigError("--prompt needs a text: the prompt to answer.")
    for prompt in prompts:
        if arguments.run is None and prompt and _is_folder(prompt):
            raise ConfigError(f"`{prompt}` is a folder, and was taken for a prompt: name the run before --prompt.")
    from tiltlm.cli.compare_command import compare_run
    from tiltlm.console import Reporter
    from tiltlm.runs.reading import newest_comparable

    run = arguments.run or newest_comparable(RUNS, anew=bool(prompts))
    compare_run(_existing(run), prompts, Reporter())
    return 0


def _report(words: Sequence[str]) -> int:
    if not words:
        raise ConfigError("name the run to report on: tiltlm report runs/NAME.")
    arguments = _simple(ReportArguments, words, {}, "tiltlm report", positional=1)
    from tiltlm.report.page import write_report

    print(visible(f"rebuilt {write_report(_existing(arguments.run))}"))
    return 0


def _cache(words: Sequence[str]) -> int:
    clear = Literal["reference", "tokens", "models", "all"]
    arguments = _simple(CacheArguments, words, {"clear": clear}, "tiltlm cache", positional=0)
    from tiltlm.storage.cache_contents import clear_cache, describe_cache

    for line in clear_cache(cache_folder(), arguments.clear) if arguments.clear else describe_cache(cache_folder()):
        print(visible(line), flush=True)
    return 0


def _inspect(words: Sequence[str]) -> int:
    rest = list(words)
    data = [rest.pop(0)] if rest and not rest[0].startswith("-") else []
    if not data and not {"-h", "--help"} & set(rest):
        raise ConfigError("name the data to inspect: tiltlm inspect DATA, a file, a folder or a hub dataset id.")
    rest, report_file = _take_report(rest)
    config = parse_config(["--data.train", *(data or ["demo"]), *rest], INSPECT_HELP, "tiltlm inspect")
    from tiltlm.cli.inspect_command import inspect_data
    from tiltlm.console import Reporter
    from tiltlm.pipeline.preflight import prepare_model

    reporter = Reporter()
    prepare_model(config, reporter)
    inspect_data(config, report_file, reporter)
    return 0


def _simple(
    kind: type[Arguments], words: Sequence[str], options: Mapping[str, Any], prog: str, positional: int
) -> Arguments:
    """The arguments of a command with few; mistakes are said in a line."""
    if {"-h", "--help"} & set(words):
        explain(kind)
    else:
        leading = next((place for place, word in enumerate(words) if is_flag(word)), len(words))
        check_flags(words[min(leading, positional) :], options, prog)
    return tyro.cli(kind, args=list(words), prog=prog)


def _existing(run: Path) -> Path:
    """The run's folder as given; a bare name of one in runs/ is told from a folder that is not there."""
    if not run.exists() and (RUNS / run).is_dir():
        raise RunError(f"there is no folder {run}. Did you mean {RUNS / run}?")
    return run


def _is_folder(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except (OSError, ValueError):  # too long for a name, or with a character that none may have
        return False


def _take_report(words: list[str]) -> tuple[list[str], Path | None]:
    """Splits `--report FILE` off a command line: it is no setting of a run.

    Raises:
        ConfigError: no file is named, or it cannot be one.
    """
    rest = [word for word in words if not word.startswith("--report=")]
    files = [word.removeprefix("--report=") for word in words if word.startswith("--report=")]
    if "--report" in rest:
        at = rest.index("--report")
        files += rest[at + 1 : at + 2]
        del rest[at : at + 2]
        if not files or files[-1].startswith("-"):
            raise ConfigError("--report needs a file to write to.")
    if not files:
        return rest, None
    file = Path(files[-1]).expanduser()
    # Found out before the work, not after it.
    if file.is_dir() or not file.parent.is_dir():
        why = "it is a folder" if file.is_dir() else f"there is no folder {file.parent}"
        raise ConfigError(f"--report {files[-1]} cannot be written: {why}.")
    return rest, file


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": _train,
    "compare": _compare,
    "report": _report,
    "inspect": _inspect,
    "cache": _cache,
}

if __name__ == "__main__":
    sys.exit(main())
