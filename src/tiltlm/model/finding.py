"""Where a model lies, and whether what lies there can be trained at all: settled before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import transformers
from transformers.utils.hub import cached_file

from tiltlm.config import HubConfig
from tiltlm.errors import ModelError, TiltlmError
from tiltlm.model.adapter_files import ADAPTER, AdapterFacts, adapter_facts
from tiltlm.model.embedded import embedded_model
from tiltlm.storage.hub_access import hub_is_reachable
from tiltlm.storage.library_errors import is_out_of_memory

EMBEDDED = "embedded"
CONFIG = "config.json"
SAFE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PICKLED_WEIGHTS = ("pytorch_model.bin", "pytorch_model.bin.index.json")

_QUANTISED_BY_FILE = {"quantize_config.json": "gptq", "quant_config.json": "awq", "hf_quant_config.json": "modelopt"}
"""Files beside a quantised model that has no section on it in its configuration."""

_INCOMPLETE = "A file is damaged or incomplete: copy or download it again."
_HINTS = {
    "Too many open files": "Allow more of them (ulimit -n).",
    "Permission denied": "Change the permissions of its files.",
    "Input/output error": "Look at the disk.",
    "No space left": "Free some: the hub's files are kept in HF_HOME.",
    "SafetensorError": _INCOMPLETE,
    "PytorchStreamReader": _INCOMPLETE,
    "EOFError": _INCOMPLETE,
    "JSONDecodeError": _INCOMPLETE,
    "Padding_idx": "pad_token_id in config.json is no token of the model: set it to one, or to null.",
    "trust_remote_code": "Here that is --model.trust-remote-code, for sources that you trust.",
    "No module named": "Install it beside tiltlm, or name another model.",
    "packages that were not found": "Install them beside tiltlm, or name another model.",
}
"""What to do about an exception with these words in its name or message."""
_OTHERWISE = (
    f"Its files are damaged or incomplete, or of a kind that transformers {transformers.__version__} cannot read."
)

_LONGEST_REASON = 400
"""Characters of a library's message that are passed on."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model is loaded from: a folder or a hub id, and whether the network may be used.

    adapter: where the adapter is loaded from that belongs on the model; None where it is the model alone.
    """

    location: str
    local_files_only: bool
    trust_remote_code: bool
    adapter: ModelSource | None = None

    def file(self, name: str) -> Path | None:
        """A file of the model, fetched from the hub if need be; None where there is none or it cannot be had."""
        if Path(self.location).is_dir():
            path = Path(self.location) / name
            return path if path.is_file() else None
        try:
            found = cached_file(
                self.location,
                name,
                local_files_only=self.local_files_only,
                _raise_exceptions_for_gated_repo=False,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
        except (OSError, ValueError):  # no such repository, or no such name: loading says which
            return None
        return None if found is None else Path(found)


def find_model(path: str, hub: HubConfig, trust_remote_code: bool = False) -> ModelSource:
    """Resolves `embedded`, a folder, an id below `hub.folder`, or a hub id, in that order; an adapter with its model.

    Raises:
        ModelError: it is none of these, with what was looked for and how to give it locally; or it is a model that
            cannot be trained as it is: quantised weights, a damaged configuration, an adapter of another kind.
    """
    if path == EMBEDDED:
        return ModelSource(str(embedded_model()), True, False)
    source = _found(path, hub, trust_remote_code)
    adapter = source.file(ADAPTER)
    if adapter is None:
        return _trainable(source)
    return _of_adapter(source, _json(source, adapter), hub)


def _found(path: str, hub: HubConfig, trust_remote_code: bool) -> ModelSource:
    """What a path stands for: see `find_model`."""
    candidates = [Path(path).expanduser()]
    if hub.folder is not None:
        candidates.append(Path(hub.folder).expanduser() / path)
    for folder in candidates:
        if folder.is_dir():
            return ModelSource(str(folder), True, trust_remote_code)
        if folder.is_file():
            raise ModelError(f"{folder} is a file: give the folder that holds the model, its {CONFIG} included.")
    if hub.folder is not None:
        raise ModelError(
            f"there is no model in {candidates[-1]}: put the files of `{path}` there, or unset hub.folder."
        )
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise ModelError(f"there is no model folder {path}.")
    return ModelSource(path, not hub_is_reachable(), trust_remote_code)


def _trainable(source: ModelSource) -> ModelSource:
    """The source, if all its weights can be trained.

    Raises:
        ModelError: it is quantised, or it has no configuration that can be read.
    """
    config = source.file(CONFIG)
    if config is None:
        if (folder := Path(source.location)).is_dir():
            inside = sorted(str(path.parent) for path in folder.glob(f"*/{CONFIG}"))
            hint = f" There is one in {inside[-1]}." if inside else " Save it there with transformers' save_pretrained."
            raise ModelError(f"the folder {folder} holds no model: it has no {CONFIG}.{hint}")
        return source  # on the hub, or in its cache: loading says what is the matter
    settings = _json(source, config)
    if (method := _quantisation(source, settings)) is not None:
        raise ModelError(
            f"the weights of `{source.location}` are quantised ({method}), and training needs them unquantised: "
            "name the model that these were made from (adapter.quantise quantises it again for an adapter), or save "
            "them dequantised (transformers: model.dequantize(), then save_pretrained)."
        )
    return source


def _of_adapter(source: ModelSource, settings: dict[str, Any], hub: HubConfig) -> ModelSource:
    """The source of an adapter's model, with the adapter.

    Raises:
        ModelError: the adapter cannot be trained on, stands on another one, or its model cannot be had.
    """
    if any(source.file(name) for name in (*SAFE_WEIGHTS, *PICKLED_WEIGHTS)):
        raise ModelError(
            f"`{source.location}` holds an adapter ({ADAPTER}) beside a whole model: if the adapter is merged into it "
            f"already, move {ADAPTER} and the adapter_model file away; if not, move the model away, and name it "
            f"in {ADAPTER} (base_model_name_or_path)."
        )
    facts = adapter_facts(source.location, settings)
    beside = Path(source.location).parent / facts.base  # as somebody may have written who moves both
    named = str(beside) if facts.base.startswith(".") and beside.is_dir() else facts.base
    try:
        found = _found(named, hub, source.trust_remote_code)
        if found.file(ADAPTER) is not None:
            raise ModelError("it is an adapter itself, and only one at a time is trained: merge that one first.")
        return replace(_trainable(found), adapter=source)
    except ModelError as error:
        raise ModelError(
            f"the model `{facts.base}` of the adapter in `{source.location}` cannot be used: {error} Where it is "
            f"somewhere else, write that into {ADAPTER} (base_model_name_or_path)."
        ) from error


def facts_of_adapter(source: ModelSource) -> AdapterFacts | None:
    """What the adapter of a source says of itself; None where it has none."""
    path = source.adapter.file(ADAPTER) if source.adapter is not None else None
    if source.adapter is None or path is None:
        return None
    return adapter_facts(source.adapter.location, _json(source.adapter, path))


def _quantisation(source: ModelSource, settings: dict[str, Any]) -> str | None:
    """How the weights are quantised: the method's name; None where they are not."""
    sections = [settings, *(part for part in settings.values() if isinstance(part, dict))]
    for section in sections:
        for name in ("quantization_config", "compression_config"):
            if details := section.get(name):
                method = details.get("quant_method") if isinstance(details, dict) else None
                return str(method or "quantization_config in config.json")
    return next((method for name, method in _QUANTISED_BY_FILE.items() if source.file(name) is not None), None)


def _json(source: ModelSource, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path.name} of `{source.location}` is damaged and cannot be read ({error}): restore the file."
        ) from error
    if not isinstance(content, dict):
        raise ModelError(f"{path.name} of `{source.location}` is damaged: it should hold a table. Restore the file.")
    return content


@contextmanager
def explained(source: ModelSource, what: str) -> Iterator[None]:
    """Turns whatever goes wrong while `what` is loaded into one sentence for the person who runs the program.

    Raises:
        ModelError: in place of the library's own exception.
    """
    try:
        yield
    except TiltlmError:
        raise
    except Exception as error:  # tokenizers raises plain Exception, and code that comes with a model anything
        if is_out_of_memory(error):
            raise  # the model may be as good as any
        raise ModelError(_sentence(source, what, error)) from error


def _sentence(source: ModelSource, what: str, error: Exception) -> str:
    adapter = "" if source.adapter is None else f", the model of the adapter in `{source.adapter.location}`,"
    if source.local_files_only and not Path(source.location).is_dir():
        named = "--model.path FOLDER" if source.adapter is None else f"its folder in {ADAPTER}, base_model_name_or_path"
        return (
            f"the {what} of `{source.location}`{adapter} is not in the local cache, and the Hugging Face hub cannot be "
            f"reached. Give it locally: {named}, or --hub.folder DIR with the files in DIR/{source.location}."
        )
    hint = next((hint for kind, hint in _HINTS.items() if kind in f"{type(error).__name__} {error}"), _OTHERWISE)
    return f"the {what} of `{source.location}`{adapter} cannot be loaded: {_reason(error)} {hint}"


def _reason(error: Exception) -> str:
    """A library's message on one line, whole or cut behind a sentence, and ended by a full stop."""
    words = " ".join(str(error).split())
    if isinstance(error, LookupError) or not words:
        words = f"{type(error).__name__} {words}".strip()
    if len(words) > _LONGEST_REASON:
        head = words[:_LONGEST_REASON]
        words = head[: head.rfind(". ") + 1] or f"{head.rsplit(' ', 1)[0]} ..."
    return words if words.endswith((".", "!", "?")) else f"{words}."
