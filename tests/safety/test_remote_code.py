"""Code that comes with a model, its tokenizer, its data or a run is not run, and it is said which option would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import SCRIPT
from tiny_folders import change_json, save_tiny
from tiny_runs import write_model, write_pairs

from tiltlm.cli import main
from tiltlm.config import HubConfig
from tiltlm.data.files.hub_datasets import hub_rows
from tiltlm.data.files.sources import open_source
from tiltlm.errors import DataError, ModelError
from tiltlm.model.finding import find_model
from tiltlm.model.loading import load_tokenizer, model_facts
from tiltlm.model.weights import load_model

OPTION = "--model.trust-remote-code"
CLASSES = """
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

class C(LlamaConfig):
    pass

class M(LlamaForCausalLM):
    config_class = C

class T(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "ran"


@pytest.fixture
def folder(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's folder with code in it that tells when it is run; what transformers keeps of it is kept here."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = save_tiny(tmp_path / "model")
    code = SCRIPT.format(mark=str(mark))
    (folder / "evil.py").write_text(code + CLASSES)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(f"{code}def generate(model, **options):\n    pass\n")
    return folder


def load(folder: Path, trusted: bool = False) -> None:
    source = find_model(str(folder), HubConfig(), trust_remote_code=trusted)
    model_facts(source, load_tokenizer(source))
    load_model(source, torch.device("cpu"))


MAPS: dict[str, Any] = {
    "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M", "AutoTokenizer": ["evil.T", "evil.T"]}
}


def test_code_beside_a_known_model_is_not_run(folder: Path, mark: Path) -> None:
    change_json(folder, **MAPS)
    change_json(folder, "tokenizer_config.json", **MAPS)
    change_json(folder, "generation_config.json", custom_generate="evil", **MAPS)
    load(folder)
    assert not mark.exists()


def test_a_model_of_its_own_code_is_refused_with_the_option(folder: Path, mark: Path) -> None:
    change_json(folder, model_type="own", **MAPS)
    with pytest.raises(ModelError, match=OPTION):
        load(folder)
    assert not mark.exists()


def test_a_model_of_its_own_code_is_run_if_that_is_named(folder: Path, mark: Path) -> None:
    change_json(folder, **MAPS)
    load(folder, trusted=True)
    assert mark.exists(), "what the other tests look for is there to be seen"


def test_a_tokenizer_of_its_own_code_is_not_run(folder: Path, mark: Path) -> None:
    change_json(folder, "tokenizer_config.json", tokenizer_class="OwnTokenizer", **MAPS)
    for path in (folder / "tokenizer.json", folder / "vocab.json"):
        path.unlink(missing_ok=True)
    with pytest.raises(ModelError):
        load_tokenizer(find_model(str(folder), HubConfig()))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["set.py", "dataset.py", "train.py", "__init__.py", "setup.py"])
def test_a_script_beside_data_is_not_run(name: str, tmp_path: Path, mark: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write_pairs(folder / "train.jsonl", 2)
    (folder / name).write_text(SCRIPT.format(mark=str(mark)))
    assert len(list(open_source(str(folder), "train", None, None, "data.train").rows)) == 2
    with pytest.raises(DataError, match="not read"):
        list(open_source(str(folder / name), "train", None, None, "data.train").rows)
    assert not mark.exists()


def test_a_dataset_that_is_a_script_is_refused(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the library itself, however it is reached."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = Path("own/set")
    folder.mkdir(parents=True)
    (folder / "set.py").write_text(SCRIPT.format(mark=str(mark)))
    with pytest.raises(DataError, match="script"):
        list(hub_rows("own/set", "train", None))
    assert not mark.exists()


def test_a_runs_folder_cannot_ask_for_code(
    folder: Path, mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run of somebody else says that code is to be trusted; whoever compares must say so too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILTLM_CACHE", str(tmp_path / "cache"))
    write_model(Path("tiny"))
    write_pairs(Path("pairs.jsonl"))
    small = ["--training.max-steps", "1", "--comparison.prompts", "0", "--run.name", "one"]
    assert main(["train", "--model.path", "tiny", "--data.train", "pairs.jsonl", *small]) == 0
    settings = Path("runs/one/config.json")
    content = json.loads(settings.read_text())
    content["model"] |= {"path": str(folder), "trust_remote_code": True}
    settings.write_text(json.dumps(content))
    change_json(folder, **MAPS)
    asked = ["compare", "runs/one", "--prompt", "Is 1 a number?"]
    capsys.readouterr()
    assert main(asked) == 1
    assert "say --trust-remote-code if you trust it" in capsys.readouterr().err
    assert not mark.exists()
    assert main(["train", "--resume", "runs/one"]) == 1
    assert "model.trust_remote_code: true then, false now" in capsys.readouterr().err.lower()
    assert not mark.exists()
    main([*asked, "--trust-remote-code"])
    assert mark.exists()
    assert main(["train", "--resume", "runs/one", "--model.trust-remote-code"]) == 0, "named, it is what the run had"
