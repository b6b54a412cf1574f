"""The commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tiltlm import __version__, demo
from tiltlm.cache import cache_folder
from tiltlm.config import Config, load_config
from tiltlm.errors import ConfigError, TiltlmError
from tiltlm.validation import validate

USAGE = """\
usage: tiltlm COMMAND ...

  tiltlm train [CONFIG.toml] [--section.option value ...]   read, train, compare, report; no arguments: the demo
  tiltlm compare [RUN] [--prompt TEXT ...]                  base against trained model, side by side
  tiltlm report RUN                                         rebuild the pictures and the page from the run's files
  tiltlm inspect DATA [--section.option value ...]          what is in my data, before I train
  tiltlm cache [--clear reference|models|all]               what is kept between runs, where, and how large

Each command explains itself: tiltlm COMMAND --help
"""

TRAIN_HELP = """\
Train a language model on preference pairs with Direct Preference Optimization.

usage: tiltlm train [CONFIG.toml] [--section.option value ...]

CONFIG.toml holds sections and options of the same names as the flags; flags win over it. Without CONFIG.toml and
without --data.train the demo's settings are the starting point. Everything a run leaves behind lies in runs/NAME.
"""

INSPECT_HELP = """\
Show what is in preference data, before training on it.

usage: tiltlm inspect DATA [--section.option value ...]

DATA is a file, a folder or a hub dataset id. The options are those of `tiltlm train`; --model.path names the model
whose tokenizer counts, --report FILE.json keeps the whole account.
"""


@dataclass(frozen=True)
class CompareArguments:
    """Base against trained model, side by side: recorded answers, or new ones to prompts of your own."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """The run's folder; the newest run in runs/ if none is given."""
    prompt: tuple[str, ...] = field(default=())
    """Prompts to answer now. Written as the training data was: as a chat if it was chats, else verbatim."""


@dataclass(frozen=True)
class ReportArguments:
    """Rebuild training_metrics.png, comparison.md and report.html from the files of a run."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""


@dataclass(frozen=True)
class CacheArguments:
    """Show what is kept between runs: where it lies, what it is, how large; or remove it."""

    clear: Literal["reference", "models", "all"] | None = None
    """Remove reference log-probabilities, the converted embedded model, or both. What is needed is made again."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0 done, 1 failed with a message, 2 misused, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["--version"]:
        print(__version__)
        return 0
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="", file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    command = COMMANDS.get(words[0])
    if command is None:
        print(f"tiltlm: there is no command `{words[0]}`.\n\n{USAGE}", end="", file=sys.stderr)
        return 2
    try:
        return command(words[1:])
    except ConfigError as error:
        print(f"tiltlm: {error}", file=sys.stderr)
        return 2
    except TiltlmError as error:
        print(f"tiltlm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ntiltlm: interrupted; what was written so far is kept.", file=sys.stderr)
        return 130


def parse_config(words: Sequence[str], description: str = TRAIN_HELP, prog: str = "tiltlm train") -> Config:
    """The resolved and validated settings of a command line: a TOML file if one is named, then flags."""
    rest = list(words)
    names_data = any(word.split("=")[0].replace("_", "-") == "--data.train" for word in rest)
    if rest and not rest[0].startswith("-"):
        base = load_config(Path(rest.pop(0)))
    else:
        base = Config() if names_data else load_config(demo.CONFIG)
    config = tyro.cli(Config, args=rest, default=base, description=description, prog=prog)
    return validate(config)


def _train(words: Sequence[str]) -> int:
    config = parse_config(words)
    # Imported here, so that help and mistakes in options do not wait for PyTorch.
    from tiltlm.console import Reporter
    from tiltlm.pipeline import train

    summary = train(config, ("tiltlm", "train", *words), Reporter())
    return 0 if summary.completed else 130


def _compare(words: Sequence[str]) -> int:
    arguments = tyro.cli(CompareArguments, args=list(words), prog="tiltlm compare")
    from tiltlm.console import Reporter
    from tiltlm.inference import compare_run
    from tiltlm.runs.folder import newest_run

    compare_run(arguments.run or newest_run(Path("runs")), arguments.prompt, Reporter())
    return 0


def _report(words: Sequence[str]) -> int:
    arguments = tyro.cli(ReportArguments, args=list(words), prog="tiltlm report")
    from tiltlm.report.page import write_report

    print(f"rebuilt {write_report(arguments.run)}")
    return 0


def _cache(words: Sequence[str]) -> int:
    arguments = tyro.cli(CacheArguments, args=list(words), prog="tiltlm cache")
    from tiltlm.cache_contents import clear_cache, describe_cache

    for line in clear_cache(cache_folder(), arguments.clear) if arguments.clear else describe_cache(cache_folder()):
        print(line, flush=True)
    return 0


def _inspect(words: Sequence[str]) -> int:
    rest = list(words)
    data = [rest.pop(0)] if rest and not rest[0].startswith("-") else []
    if not data and not {"-h", "--help"} & set(rest):
        raise ConfigError("name the data to inspect: tiltlm inspect DATA, a file, a folder or a hub dataset id.")
    rest, report_file = _take_report(rest)
    config = parse_config(["--data.train", *(data or ["demo"]), *rest], INSPECT_HELP, "tiltlm inspect")
    from tiltlm.console import Reporter
    from tiltlm.inspect_data import inspect_data

    inspect_data(config, report_file, Reporter())
    return 0


def _take_report(words: list[str]) -> tuple[list[str], Path | None]:
    """Splits `--report FILE` off a command line: it is no setting of a run."""
    rest = [word for word in words if not word.startswith("--report=")]
    files = [word.removeprefix("--report=") for word in words if word.startswith("--report=")]
    if "--report" in rest:
        at = rest.index("--report")
        files += rest[at + 1 : at + 2]
        del rest[at : at + 2]
        if not files or files[-1].startswith("-"):
            raise ConfigError("--report needs a file to write to.")
    return rest, Path(files[-1]) if files else None


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": _train,
    "compare": _compare,
    "report": _report,
    "inspect": _inspect,
    "cache": _cache,
}

if __name__ == "__main__":
    sys.exit(main())
