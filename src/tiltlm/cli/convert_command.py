"""`tiltlm convert-config`: settings from the arguments of a TRL script."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tiltlm.cli.arguments import ConvertConfig
from tiltlm.cli.command_line import parse_simple
from tiltlm.config.from_trl.converting import convert
from tiltlm.config.from_trl.given_arguments import read_arguments
from tiltlm.config.from_trl.written import report, toml_text
from tiltlm.errors import ConfigError


def run_convert(words: Sequence[str]) -> int:
    """Does what the words behind `tiltlm convert-config` say; see `convert_config`.

    Raises:
        ConfigError: a word is not understood, or no file is named.
    """
    if not words:
        raise ConfigError("name the file of a TRL script's arguments: tiltlm convert-config dpo.yaml.")
    options = {"output": Path, "pairs": int, "processes": int, "strict": bool}
    return convert_config(parse_simple(ConvertConfig, words, options, positional=1))


def convert_config(arguments: ConvertConfig) -> int:
    """Writes the settings, and says on standard error what they leave out; returns the exit code.

    Raises:
        ConfigError: the file cannot be read or converted, a number of the command is impossible, or the file to write
            is there; or, where that is asked for, an argument has no counterpart.
    """
    for name, number in (("--pairs", arguments.pairs), ("--processes", arguments.processes)):
        if number is not None and number < 1:
            raise ConfigError(f"{name} must be at least 1, not {number}.")
    given = read_arguments(arguments.file.expanduser())
    try:
        conversion = convert(given, arguments.pairs, arguments.processes)
    except ConfigError as error:
        raise ConfigError(f"{arguments.file}: {error}") from error
    for line in report(conversion):
        print(line, file=sys.stderr)
    lost = conversion.said("lost")
    if lost and arguments.strict:
        raise ConfigError(f"{arguments.file}: {len(lost)} of its arguments have no counterpart; they stand above.")
    text = toml_text(conversion, given, arguments.file.name)
    if arguments.output is None:
        print(text, end="")
        return 0
    try:
        with arguments.output.expanduser().open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(f"--output {arguments.output} is there: name another file, or remove it.") from error
    except OSError as error:
        raise ConfigError(f"--output {arguments.output} cannot be written: {error.strerror}.") from error
    print(f"wrote {arguments.output}: tiltlm train {arguments.output}", file=sys.stderr)
    return 0
