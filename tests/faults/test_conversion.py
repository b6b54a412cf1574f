"""The embedded model's conversion and what the hub sends, cut short: nothing half is ever taken for a whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_runs import write_model

from tiltlm.config import HubConfig
from tiltlm.errors import DataError, ModelError
from tiltlm.model import embedded, given
from tiltlm.model.finding import find_model
from tiltlm.model.loading import load_tokenizer
from tiltlm.model.weights import load_model
from tiltlm.storage.cache_contents import cache_contents


def interrupted(folder: Path) -> None:
    raise KeyboardInterrupt


def full(folder: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def full_in_rust(folder: Path) -> None:
    raise Exception("No space left on device (os error 28)")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("ends", [interrupted, full])
def test_a_conversion_that_is_cut_short_is_made_again(
    ends: Callable[[Path], None], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(gguf: Path, folder: Path) -> None:
        write_model(folder)
        (folder / "model.safetensors").write_bytes(b"half")
        ends(folder)

    monkeypatch.setattr(embedded, "_installed_gguf", lambda: cache / "file.gguf")
    monkeypatch.setattr(embedded, "_check", lambda gguf: None)
    monkeypatch.setattr(embedded, "require", lambda packages, what: None)
    with monkeypatch.context() as patch:
        patch.setattr(embedded, "_convert", half)
        with pytest.raises((KeyboardInterrupt, OSError)):
            embedded.embedded_model(lambda line: None)
    assert cache_contents(cache, "models") == []
    monkeypatch.setattr(embedded, "_convert", lambda gguf, folder: write_model(folder))
    folder = embedded.embedded_model(lambda line: None)
    assert (folder / "model.safetensors").stat().st_size > 1000
    assert [kept.path for kept in cache_contents(cache, "models")] == [folder]


@pytest.mark.parametrize("ends", [interrupted, full, full_in_rust])
def test_a_model_given_from_python_is_kept_whole_or_not_at_all(
    ends: Callable[[Path], None], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = find_model(str(write_model(tmp_path / "tiny")), HubConfig())
    model, tokenizer = load_model(source, torch.device("cpu")), load_tokenizer(source)
    with monkeypatch.context() as patch:
        patch.setattr(type(tokenizer), "save_pretrained", lambda self, folder: ends(folder))
        with pytest.raises((KeyboardInterrupt, OSError)):
            given.keep_model(model, tokenizer)
    assert cache_contents(cache, "models") == []
    assert (given.keep_model(model, tokenizer) / "tokenizer.json").is_file()


def test_a_download_that_is_cut_short_is_an_error_of_the_data_or_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*given: object, **named: object) -> None:
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    monkeypatch.setattr("tiltlm.data.files.hub_datasets.hub_is_reachable", lambda: True)
    monkeypatch.setattr("tiltlm.model.finding.hub_is_reachable", lambda: True)
    monkeypatch.setattr("tiltlm.model.finding.cached_file", cut)
    monkeypatch.setattr("datasets.load_dataset", cut)
    monkeypatch.setattr("tiltlm.model.loading.AutoTokenizer.from_pretrained", cut)
    from tiltlm.data.files.hub_datasets import hub_rows

    with pytest.raises(DataError, match="Connection reset by peer"):
        list(hub_rows("owner/name", "train", None))
    with pytest.raises(ModelError, match="Connection reset by peer"):
        load_tokenizer(find_model("owner/name", HubConfig()))
