"""Models and tokenizers that a program holds already, rather than names of them."""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tiltlm.data.tokens.templates import choose_template
from tiltlm.errors import ModelError
from tiltlm.model.reference import fingerprint
from tiltlm.storage.cache import GIVEN_PREFIX, MODELS, UNFINISHED_PREFIX, move_into_place, writable_cache_folder
from tiltlm.storage.library_errors import as_os_error

Model = str | Path | PreTrainedModel
"""A model by its name or folder, or loaded."""


def fast_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """The tokenizer, if it is one that gives token offsets.

    Raises:
        ModelError: it does not.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(f"{type(tokenizer).__name__} has no fast form, and token offsets are needed.")
    return tokenizer


def own_tokenizer(tokenizer: PreTrainedTokenizerBase | None) -> PreTrainedTokenizerFast:
    """The tokenizer of a loaded model.

    Raises:
        ModelError: there is none, or it has no fast form.
    """
    if tokenizer is None:
        raise ModelError("a loaded model needs its tokenizer: give tokenizer=... too.")
    return fast_tokenizer(tokenizer)


def name_of(model: object, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """The name or folder of a model; one that is loaded is kept first (see `keep_model`).

    Raises:
        ModelError: it is no model, or a tokenizer is given beside a name, which stands for both.
    """
    if isinstance(model, PreTrainedModel):
        return str(keep_model(model, own_tokenizer(tokenizer)))
    if not isinstance(model, str | Path | None):
        raise ModelError(
            f"a {type(model).__name__} is no model of transformers: give a name, a folder or a loaded PreTrainedModel "
            "(of peft: what merge_and_unload() returns)."
        )
    if model is None or tokenizer is not None:
        raise ModelError(
            "a tokenizer is given without its loaded model: give the loaded model too, or neither; a model's name or "
            "folder stands for its tokenizer as well."
        )
    return str(model)


def with_template(tokenizer: PreTrainedTokenizerBase, choice: str | None) -> PreTrainedTokenizerFast:
    """The tokenizer with the template of this name or file, as a copy; None leaves its own.

    Raises:
        ModelError: it has no fast form.
        ConfigError: there is no such template.
    """
    fast = copy.copy(fast_tokenizer(tokenizer))
    choose_template(fast, choice)
    return fast


def keep_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Path:
    """Writes a loaded model and its tokenizer to a folder of the cache, named by their content, unless they are there.

    So the caller's model stays as it is, a run can load it as often as it must, and what is recorded of the run names
    files that can be read again.

    Raises:
        ModelError: the tokenizer has no fast form.
        ConfigError: the cache cannot be written.
    """
    fast = fast_tokenizer(tokenizer)
    digest = hashlib.sha256(fingerprint(model).encode())
    digest.update(json.dumps(_generation(model), sort_keys=True, default=str).encode())
    digest.update(json.dumps(_vocabulary(fast), sort_keys=True).encode())
    digest.update(repr((fast.chat_template, sorted(fast.special_tokens_map.items()))).encode())
    models = writable_cache_folder(MODELS)
    folder = models / f"{GIVEN_PREFIX}{digest.hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(prefix=UNFINISHED_PREFIX, dir=models) as scratch:
        whole = Path(scratch) / "model"
        with _config_kept(model), as_os_error(whole):
            model.save_pretrained(whole)
            fast.save_pretrained(whole)
        move_into_place(whole, folder)
    return folder


def _generation(model: PreTrainedModel) -> dict[str, object]:
    """The configuration of generation: what ends an answer stands there."""
    config = {} if model.generation_config is None else model.generation_config.to_dict()
    return {name: value for name, value in config.items() if name != "transformers_version"}


def _vocabulary(tokenizer: PreTrainedTokenizerFast) -> dict[str, object]:
    """The tokenizer's own serialisation, but for how its last call padded and cut."""
    serialised = json.loads(tokenizer.backend_tokenizer.to_str())
    return {name: value for name, value in serialised.items() if name not in ("padding", "truncation")}


@contextmanager
def _config_kept(model: PreTrainedModel) -> Iterator[None]:
    """Within, transformers may note in the configuration what it saves; afterwards it is as it was."""
    own = vars(model.config)
    before = dict(own)
    try:
        yield
    finally:
        own.clear()
        own.update(before)


@contextmanager
def in_float32(model: PreTrainedModel) -> Iterator[None]:
    """Within, weights of a narrower type are float32, as training has them; afterwards they are what they were."""
    narrow = [t for t in (*model.parameters(), *model.buffers()) if t.dtype in (torch.bfloat16, torch.float16)]
    values = [tensor.data for tensor in narrow]
    try:
        for tensor in narrow:
            tensor.data = tensor.data.float()
        yield
    finally:
        for tensor, own in zip(narrow, values, strict=True):
            tensor.data = own
