"""An adapter as peft holds it: what is trained beside a frozen model, and how it is written."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tiltlm.model.adapter_files import ADAPTER

if TYPE_CHECKING:
    from peft import PeftModel

NAME = "default"
"""What peft calls an adapter that nobody named."""


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """What is trained beside a frozen model."""

    peft: PeftModel

    def save(self, folder: Path, base: str) -> None:
        """Writes it as peft does: matrices in float32 and adapter_config.json.

        base: where its model is found again.
        """
        config = self.peft.peft_config[NAME]
        before = config.base_model_name_or_path, config.inference_mode
        config.base_model_name_or_path, config.inference_mode = base, True
        try:
            with without_remarks():
                self.peft.save_pretrained(str(folder), save_embedding_layers=False)
        finally:
            config.base_model_name_or_path, config.inference_mode = before
        _make_readable(folder / ADAPTER)


def _make_readable(path: Path) -> None:
    """Sorts what peft writes in the order of a set, so that the same adapter gives the same file."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(settings.get("target_modules"), list):
        settings["target_modules"].sort()
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def without_remarks() -> Iterator[None]:
    """Remarks of peft, of what it imports and of what it calls, on choices that are made here, are left out."""
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)
