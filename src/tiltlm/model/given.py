"""Models and tokenizers that a program holds already, rather than names of them."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tiltlm.errors import ModelError
from tiltlm.model.reference import fingerprint
from tiltlm.storage.cache import GIVEN_PREFIX, MODELS, UNFINISHED_PREFIX, writable_cache_folder


def fast_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """The tokenizer, if it is one that gives token offsets.

    Raises:
        ModelError: it does not.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(f"{type(tokenizer).__name__} has no fast form, and token offsets are needed.")
    return tokenizer


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
    digest.update(fast.backend_tokenizer.to_str().encode())
    digest.update(repr((fast.chat_template, sorted(fast.special_tokens_map.items()))).encode())
    models = writable_cache_folder(MODELS)
    folder = models / f"{GIVEN_PREFIX}{digest.hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(prefix=UNFINISHED_PREFIX, dir=models) as scratch:
        whole = Path(scratch) / "model"
        model.save_pretrained(whole)
        fast.save_pretrained(whole)
        try:
            whole.replace(folder)  # in one move, so that nobody ever sees half a model
        except OSError:
            if not folder.is_dir():  # otherwise another process was first, with the same content
                raise
    return folder
