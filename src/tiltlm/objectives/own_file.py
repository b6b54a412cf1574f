"""An objective of a user's own, from a file of theirs or given from Python. Its code is run because it was named."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import inspect
import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tiltlm.errors import ConfigError
from tiltlm.objectives.functions import DeclarationError, Function, objective
from tiltlm.objectives.interface import Objective

GIVEN = "given:"
"""How the name of an objective begins that was given from Python."""
_NAMED = re.compile(r"(?P<file>.+\.py):(?P<value>\w*)")


@dataclass(frozen=True, slots=True)
class OwnObjective:
    """A user's own objective, under the name that `loss.name` has for it, and the source that it was made of.

    digest: SHA-256 of the source, as hexadecimal digits.
    """

    objective: Objective
    source: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.source).hexdigest()


def is_own(name: object) -> bool:
    """Whether `loss.name` names an objective of a user's own: `FILE.py:NAME`, or one given from Python."""
    return isinstance(name, str) and (_NAMED.fullmatch(name) is not None or name.startswith(GIVEN))


def read_own(name: str) -> OwnObjective:
    """Runs the file that a name names, and takes the objective out of it. A path is taken from the working directory.

    Raises:
        ConfigError: there is no such file, it fails, or it holds no objective of that name.
    """
    named = _NAMED.fullmatch(name)
    if named is None:
        raise ConfigError(
            f"the objective `{name.removeprefix(GIVEN)}` was given from Python: give it again, "
            "tiltlm.train(..., objective=...)."
        )
    path, value = Path(named["file"]).expanduser(), named["value"]
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"loss.name is `{name}`, but {path} cannot be read ({error.strerror}); a path is taken from the working "
            f"directory, {Path.cwd()}."
        ) from error
    module = executed(path, source, "the objective's file")
    found = vars(module).get(value)
    if found is None:
        there = [own for own, kind in vars(module).items() if _may_be(kind, module)]
        listed = f"It has: {', '.join(there)}." if there else "It has no objective and no function."
        raise ConfigError(f"loss.name is `{name}`, but there is no `{value}` in {path}. {listed}")
    return OwnObjective(as_objective(found, name), source)


def given_objective(value: Any) -> OwnObjective:
    """An objective that was given from Python.

    Raises:
        ConfigError: it is none.
    """
    called = value.name if isinstance(value, Objective) else getattr(value, "__name__", type(value).__name__)
    own = as_objective(value, f"{GIVEN}{called}")
    return OwnObjective(own, _source_of(own.loss))


def as_objective(value: Any, name: str) -> Objective:
    """A value as the objective of this name.

    Raises:
        ConfigError: it is neither an `Objective` nor a function that can be declared as one.
    """
    try:
        if not isinstance(value, Objective):
            if not inspect.isfunction(value):
                raise DeclarationError(f"it is a {type(value).__name__}, neither a function nor a tiltlm.Objective.")
            function: Function = value
            value = objective()(function)
        found: Objective = dataclasses.replace(value, name=name)
        options = [field.name for field in dataclasses.fields(found.settings)]
        found.settings()
    except (DeclarationError, TypeError, ValueError) as error:
        raise ConfigError(f"loss.name is `{name}`, which cannot be an objective: {error}") from error
    if "name" in options:
        raise ConfigError(f"`{name}` calls a setting `name`, which is the objective's: call it otherwise.")
    return found


def raised_in(path: str, error: BaseException) -> str:
    """What was raised, and at which line of a file, if in it: `my.py, line 3 (x = 1 / 0): ZeroDivisionError: ...`."""
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and error.filename == path:
        return f"{path}, line {error.lineno} ({(error.text or '').strip()}): {type(error).__name__}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"{path}, line {frames[-1].lineno} ({frames[-1].line}): {what}" if frames else what


def executed(path: Path, source: bytes, called: str) -> ModuleType:
    """The module that a source makes; once for a source, as types of its objects are compared.

    called: what messages call the file.

    Raises:
        ConfigError: it fails.
    """
    name = f"tiltlm_own_{hashlib.sha256(source).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_loader(name, None, origin=str(path))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    sys.modules[name] = module  # annotations of its settings are looked up there
    try:
        exec(compile(source, str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:  # whatever a stranger's code raises
        del sys.modules[name]
        raise ConfigError(f"{called} fails: {raised_in(str(path), error)}.") from error
    return module


def _may_be(value: Any, module: ModuleType) -> bool:
    own = inspect.isfunction(value) and value.__module__ == module.__name__
    return own or isinstance(value, Objective)


def _source_of(function: Any) -> bytes:
    """The text that a function was written as; what it was compiled to where there is none, as in a console."""
    plain = inspect.unwrap(function)
    try:
        return inspect.getsource(plain).encode()
    except (OSError, TypeError):
        code = getattr(plain, "__code__", None)
        return repr(plain).encode() if code is None else code.co_code + repr(code.co_consts).encode()
