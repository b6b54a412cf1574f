"""Every weight from the files, or an error that names it; and no library's exception ever escapes."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_folders import change_json, change_weights, pickle_weights, save_tiny, shard_weights
from tiny_models import SHAREABLE, UNSHAREABLE, build
from transformers import AutoModelForCausalLM, AutoTokenizer, T5Config, T5ForConditionalGeneration

from tiltlm.cli import main
from tiltlm.config import HubConfig
from tiltlm.data.tokens.token_columns import TokenColumns, TokenizedExample, TokenizedSequence
from tiltlm.errors import ModelError
from tiltlm.model.finding import find_model
from tiltlm.model.loading import load_tokenizer, model_facts
from tiltlm.model.vocabulary import require_embedded, require_examples_embedded
from tiltlm.model.weights import load_model

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "model")


def load(folder: Path) -> list[str]:
    """Finds and loads everything, as a training does; returns the notes."""
    notes: list[str] = []
    source = find_model(str(folder), HubConfig())
    model_facts(source, load_tokenizer(source))
    load_model(source, CPU, notes.append)
    return notes


def refusal(folder: Path) -> str:
    """What a person is told: one line, in whole sentences."""
    with pytest.raises(ModelError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".") and str(folder) in message
    return message


def rename(folder: Path, change: Callable[[str], str]) -> None:
    change_weights(folder, lambda weights: {change(name): tensor for name, tensor in weights.items()})


def without(folder: Path, part: str) -> None:
    change_weights(folder, lambda weights: {name: tensor for name, tensor in weights.items() if part not in name})


def test_a_whole_model_loads_without_a_word(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert load(folder) == []
    assert "LOAD REPORT" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("name", [*SHAREABLE, *UNSHAREABLE])
def test_every_architecture_comes_back_whole(name: str, tmp_path: Path) -> None:
    model = build(SHAREABLE[name]() if name in SHAREABLE else UNSHAREABLE[name][0](), torch.float32)
    model.save_pretrained(tmp_path)
    notes: list[str] = []
    again = load_model(find_model(str(tmp_path), HubConfig()), CPU, notes.append)
    assert notes == []
    weights = again.state_dict()
    assert all(torch.equal(tensor, weights[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tied_output_layer_need_not_be_in_the_file(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = save_tiny(tmp_path / "tied", tie_word_embeddings=True)
    change_weights(folder, lambda weights: {name: tensor.to(dtype) for name, tensor in weights.items()})
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    assert load(folder) == []


@pytest.mark.parametrize(
    ("prefix", "maker"),
    [
        ("module.", "DataParallel"),
        ("_orig_mod.", "torch.compile"),
        ("base_model.model.", "peft"),
        ("module._orig_mod.", "DataParallel"),
        ("policy.", ""),
    ],
)
def test_wrapped_weights_are_refused_with_their_prefix(folder: Path, prefix: str, maker: str) -> None:
    rename(folder, lambda name: prefix + name)
    message = refusal(folder)
    assert f"begin with `{prefix}`" in message and maker in message
    assert "21 weights of the model are not in the files: lm_head.weight" in message and "18 more" in message


def test_a_missing_output_layer_is_named(folder: Path) -> None:
    without(folder, "lm_head")
    assert re.search("1 weight of the model is not in the files: lm_head.weight.*tie_word_embeddings", refusal(folder))


@pytest.mark.parametrize("head", ["score.weight", "v_head.summary.weight", "classifier.bias"])
def test_a_reward_model_is_named(folder: Path, head: str) -> None:
    without(folder, "lm_head")
    change_weights(folder, lambda weights: {**weights, head: torch.zeros(1, 16)})
    message = refusal(folder)
    assert "lm_head.weight" in message and head in message and "reward model" in message


@pytest.mark.parametrize("part", ["layers.1", "mlp.up_proj", "embed_tokens", "model.norm"])
def test_any_missing_weight_is_refused(folder: Path, part: str) -> None:
    without(folder, part)
    message = refusal(folder)
    assert part in message and "not in the files" in message


def test_shapes_that_do_not_fit_are_refused_with_both(folder: Path) -> None:
    change_json(folder, vocab_size=999)
    message = refusal(folder)
    assert "another shape" in message and "999 x 16" in message and "config.json" in message


def test_weights_without_a_place_are_a_note(folder: Path) -> None:
    change_weights(folder, lambda weights: {**weights, "v_head.weight": torch.zeros(1, 16)})
    (note,) = load(folder)
    assert "1 weight in the files" in note and "v_head.weight" in note


def test_buffers_that_models_compute_themselves_are_no_note(folder: Path) -> None:
    change_weights(folder, lambda weights: {**weights, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    assert load(folder) == []


@pytest.mark.parametrize("with_config", [True, False])
@pytest.mark.parametrize("kind", ["LORA", "IA3"])
def test_an_adapter_is_named_with_its_base(folder: Path, with_config: bool, kind: str) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    if not with_config:
        (folder / "config.json").unlink()
    change_json(folder, "adapter_config.json", peft_type=kind, base_model_name_or_path="some/base")
    message = refusal(folder)
    if kind == "LORA":
        assert "the model of the adapter in" in message and "`some/base`" in message
        assert "base_model_name_or_path" in message
    else:
        assert "is of the kind IA3" in message and "merge_and_unload" in message


def test_an_adapter_beside_a_whole_model_is_asked_about(folder: Path) -> None:
    change_json(folder, "adapter_config.json", peft_type="LORA")
    assert "beside a whole model" in refusal(folder)


def test_unmerged_adapter_weights_among_the_models_own_are_refused(folder: Path) -> None:
    name = "model.layers.0.self_attn.q_proj.lora_A.default.weight"
    change_weights(folder, lambda weights: {**weights, name: torch.zeros(2, 16)})
    message = refusal(folder)
    assert name in message and "Merge it" in message


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "fp8", "mxfp4", "compressed-tensors", "new"])
@pytest.mark.parametrize("section", [None, "text_config"])
def test_quantised_weights_are_refused_before_any_import(folder: Path, method: str, section: str | None) -> None:
    details = {"quantization_config": {"quant_method": method, "bits": 4}}
    change_json(folder, **(details if section is None else {section: details}))
    message = refusal(folder)
    assert f"quantised ({method})" in message and "unquantised" in message


@pytest.mark.parametrize("name", ["quantize_config.json", "quant_config.json", "hf_quant_config.json"])
def test_older_marks_of_quantised_weights_are_known(folder: Path, name: str) -> None:
    change_json(folder, name, bits=4)
    assert "quantised" in refusal(folder)


def test_weights_that_are_quantised_without_a_word_are_refused(folder: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight_scale_inv"
    change_weights(folder, lambda weights: {**weights, name: torch.ones(1)})
    message = refusal(folder)
    assert name in message and "quantised" in message


@pytest.mark.parametrize("settings", [{}, {"quantization_config": None}])
def test_a_model_that_is_not_quantised_is_not_called_so(folder: Path, settings: dict[str, Any]) -> None:
    change_json(folder, **settings)
    assert load(folder) == []


@pytest.mark.parametrize("shards", [1, 3])
def test_pickled_weights_are_refused_with_how_to_convert_them(folder: Path, shards: int, tmp_path: Path) -> None:
    pickle_weights(folder, shards)
    message = refusal(folder)
    assert "in pytorch_model.bin" in message and "is a pickle" in message and "safetensors" in message
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)
    assert load(folder) == []


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def safe_index(folder: Path) -> Path:
    """Spreads the weights over several safetensors files; returns their index."""
    return shard_weights(folder)[0].with_name("model.safetensors.index.json")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "config.json cut short": lambda folder: truncate(folder / "config.json"),
    "config.json empty": lambda folder: (folder / "config.json").write_text(""),
    "config.json a list": lambda folder: (folder / "config.json").write_text("[]"),
    "config.json not text": lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00"),
    "a setting of the wrong type": lambda folder: change_json(folder, hidden_size="many"),
    "an impossible setting": lambda folder: change_json(folder, num_attention_heads=0),
    "no such architecture": lambda folder: change_json(folder, model_type="of next year"),
    "no architecture": lambda folder: change_json(folder, model_type=None),
    "generation_config.json cut short": lambda folder: truncate(folder / "generation_config.json"),
    "tokenizer.json cut short": lambda folder: truncate(folder / "tokenizer.json"),
    "tokenizer.json a table of something": lambda folder: (folder / "tokenizer.json").write_text('{"a": 1}'),
    "tokenizer_config.json cut short": lambda folder: truncate(folder / "tokenizer_config.json"),
    "weights cut short": lambda folder: truncate(folder / "model.safetensors"),
    "weights empty": lambda folder: (folder / "model.safetensors").write_bytes(b""),
    "weights a page of HTML": lambda folder: (folder / "model.safetensors").write_text("<html>not found</html>" * 9),
    "weights a pointer of git lfs": lambda folder: (folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n"
    ),
    "pickled weights cut short": lambda folder: truncate(pickle_weights(folder) / "pytorch_model.bin"),
    "pickled weights empty": lambda folder: (pickle_weights(folder) / "pytorch_model.bin").write_bytes(b""),
    "a shard is not there": lambda folder: (pickle_weights(folder, shards=3) / "pytorch_model-1.bin").unlink(),
    "a safe shard is not there": lambda folder: shard_weights(folder)[1].unlink(),
    "a safe shard cut short": lambda folder: truncate(shard_weights(folder)[1]),
    "a safe index cut short": lambda folder: truncate(
        shard_weights(folder)[0].with_name("model.safetensors.index.json")
    ),
    "a safe index of nothing": lambda folder: safe_index(folder).write_text("{}"),
    "an index cut short": lambda folder: truncate(pickle_weights(folder, shards=3) / "pytorch_model.bin.index.json"),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "weights of another program": lambda folder: (folder / "model.safetensors").rename(folder / "model-q4.gguf"),
    "no config.json": lambda folder: (folder / "config.json").unlink(),
    "adapter_config.json cut short": lambda folder: (folder / "adapter_config.json").write_text('{"peft'),
    "code of its own": lambda folder: change_json(
        folder, model_type="own", auto_map={"AutoConfig": "a.B", "AutoModelForCausalLM": "a.C"}
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_folders_end_in_a_sentence(folder: Path, damage: str) -> None:
    DAMAGE[damage](folder)
    assert len(refusal(folder)) < 900


def test_weights_in_several_files_load_without_a_word(folder: Path) -> None:
    assert len(shard_weights(folder)) > 2
    assert load(folder) == []


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the model `me/model` in a local cache of a hub that cannot be reached."""
    cache = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    commit = "0123456789" * 4
    repository = cache / "models--me--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    return save_tiny(repository / "snapshots" / commit)


def load_from_hub() -> list[str]:
    notes: list[str] = []
    source = find_model("me/model", HubConfig())
    model_facts(source, load_tokenizer(source))
    load_model(source, CPU, notes.append)
    return notes


def test_a_model_of_the_hub_loads_from_its_cache(hub: Path) -> None:
    assert load_from_hub() == []
    pickle_weights(hub)
    with pytest.raises(ModelError, match=r"pytorch_model\.bin alone, which is a pickle"):
        load_from_hub()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda hub: change_json(hub, quantization_config={"quant_method": "fp8"}), r"`me/model` are quantised \(fp8"),
        (lambda hub: change_json(hub, "adapter_config.json", peft_type="LORA"), "`me/model` holds an adapter"),
        (lambda hub: [path.unlink() for path in hub.glob("tokenizer*")], "`me/model` has no tokenizer"),
        (lambda hub: rename(hub, "module.{}".format), "`me/model` cannot be used: 21 weights"),
        (lambda hub: (hub / "model.safetensors").unlink(), "not in the local cache"),
        (lambda hub: [path.unlink() for path in hub.iterdir()], "not in the local cache"),
    ],
)
def test_a_model_of_the_hub_is_looked_at_like_a_folder(hub: Path, change: Callable[[Path], object], words: str) -> None:
    change(hub)
    with pytest.raises(ModelError, match=words):
        load_from_hub()


def test_no_tokenizer_is_said_with_the_files_that_are_missing(folder: Path) -> None:
    for path in (*folder.glob("tokenizer*"), *folder.glob("special*")):
        path.unlink()
    message = refusal(folder)
    assert "no tokenizer" in message and "tokenizer.json" in message


def test_settings_of_a_tokenizer_without_its_vocabulary_are_no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert "tokenizer" in refusal(folder)


def test_an_encoder_decoder_is_refused_before_its_weights_are_read(folder: Path) -> None:
    config = T5Config(vocab_size=300, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    assert "is a t5 model, which is no causal language model" in refusal(folder)


def test_a_folder_of_checkpoints_is_told_from_a_model(folder: Path) -> None:
    save_tiny(folder.parent / "out" / "checkpoint-500")
    with pytest.raises(ModelError, match=r"out holds no model: .* There is one in .*checkpoint-500"):
        find_model(str(folder.parent / "out"), HubConfig())


def test_a_file_is_no_model_folder(folder: Path) -> None:
    with pytest.raises(ModelError, match="is a file: give the folder"):
        find_model(str(folder / "model.safetensors"), HubConfig())


def test_tokens_that_were_added_are_told_from_another_models_tokenizer(folder: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<note>", "</note>"]})
    model = load_model(find_model(str(folder), HubConfig()), CPU)
    embeddings: Any = model.get_input_embeddings()
    rows = int(embeddings.num_embeddings)
    require_embedded(model, tokenizer, [("pair 1", [0, rows - 1]), ("pair 2", [])])
    with pytest.raises(ModelError, match=rf"pair 2 has token {rows} \(`<note>`\).*2 tokens were added.*resize_token"):
        require_embedded(model, tokenizer, [("pair 1", [0]), ("pair 2", [0, rows])])
    model.resize_token_embeddings(rows - 5)
    with pytest.raises(ModelError, match="the tokenizer is another model's"):
        require_embedded(model, tokenizer, [("pair 2", [0, rows - 1])])


def test_the_first_example_with_an_unknown_token_is_named(folder: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = load_model(find_model(str(folder), HubConfig()), CPU)
    rows = int(cast(Any, model.get_input_embeddings()).num_embeddings)

    def example(name: str, *ends: int) -> TokenizedExample:
        first, second = (TokenizedSequence(np.array([0, 1, end], dtype=np.int32), 1) for end in ends)
        return TokenizedExample.pair(name, first, second)

    known, unknown = example("a", 2, rows - 1), example("b", 2, rows)
    require_examples_embedded(model, tokenizer, TokenColumns.of([known, known]))
    with pytest.raises(ModelError, match=rf"^b has token {rows} "):
        require_examples_embedded(model, tokenizer, TokenColumns.of([known, unknown, example("c", rows, rows)]))


def test_generation_settings_that_could_not_be_saved_are_mended_and_said(folder: Path, tmp_path: Path) -> None:
    """transformers reads a temperature without do_sample, and refuses to write it: at the end of a training."""
    change_json(folder, "generation_config.json", temperature=0.6, top_p=0.9, eos_token_id=[1, 2])
    notes: list[str] = []
    model = load_model(find_model(str(folder), HubConfig()), CPU, notes.append)
    assert len(notes) == 1 and "generation_config.json" in notes[0]
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").generation_config
    assert again.eos_token_id == [1, 2] and again.temperature == 0.6


def test_train_and_inspect_say_it_in_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f'{{"prompt": "Q {n} ", "chosen": "yes", "rejected": "no"}}' for n in range(20)]
    Path("pairs.jsonl").write_text("\n".join(rows))
    change_json(folder, quantization_config={"quant_method": "gptq"})
    for words in (["train", "--data.train", "pairs.jsonl"], ["inspect", "pairs.jsonl"]):
        assert main([*words, "--model.path", str(folder)]) == 1
        assert re.fullmatch(r"tiltlm: the weights of .* are quantised \(gptq\).*\.\n", capsys.readouterr().err)


def test_the_librarys_own_table_is_left_out_and_its_logger_as_it_was(folder: Path) -> None:
    before = list(logging.getLogger("transformers.modeling_utils").filters)
    without(folder, "lm_head")
    refusal(folder)
    assert logging.getLogger("transformers.modeling_utils").filters == before


def test_auto_is_float32_where_the_processors_units_may_not_be_used() -> None:
    code = (
        "import torch; from tiltlm.model.loading import choose_precision; "
        "print(choose_precision('auto', torch.device('cpu'))[1])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "ONEDNN_MAX_CPU_ISA": "AVX2"}
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout
    assert shown.startswith("float32: ")
