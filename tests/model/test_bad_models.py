"""Odd models, as people bring them: one clear line before any work, and no folder of a run.

How each file of a model's folder is damaged, and what is said then, is tested in `test_loading.py`; here a user trains.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_folders import Weights, change_json, change_weights, pickle_weights, save_tiny, shard_weights
from tiny_tokenizers import CHAT_TEMPLATE, byte_level
from transformers import AutoTokenizer, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from tiltlm.cli import main
from tiltlm.config import HubConfig
from tiltlm.data.tokens import templates
from tiltlm.errors import ModelError
from tiltlm.model.finding import find_model
from tiltlm.model.soundness import require_sound
from tiltlm.pipeline import run

Change = Callable[[Path], object]


class WorkBeganError(Exception):
    """What takes long was reached."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with data as text and as chats, in which the long work does not begin."""

    def begins(*_: object) -> None:
        raise WorkBeganError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "with_reference", begins)
    monkeypatch.setattr(run, "without_reference", begins)
    prompts: list[Any] = [f"Question {number}? " for number in range(12)]
    chats: list[Any] = [[{"role": "user", "content": prompt}] for prompt in prompts]
    for name, column in {"text": prompts, "chats": chats}.items():
        rows = [json.dumps({"prompt": prompt, "chosen": "yes", "rejected": "no"}) for prompt in column]
        Path(f"{name}.jsonl").write_text("\n".join(rows))


def train(change: Change, data: str = "text.jsonl", words: tuple[str, ...] = ()) -> int:
    folder = save_tiny(Path("model"))
    change(folder)
    own = ["--model.path", "model", "--model.device", "cpu", "--model.precision", "float32"]
    return main(["train", "--data.train", data, *own, *words])


def with_tokenizer(folder: Path, **kind: Any) -> None:
    byte_level(pad="<eos>", **kind).save_pretrained(folder)


def with_template(text: str) -> Change:
    return lambda folder: (folder / "chat_template.jinja").write_text(text)


def with_added_tokens(*tokens: str) -> Change:
    def add(folder: Path) -> None:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
        tokenizer.save_pretrained(folder)

    return add


def with_value(value: float, part: str = "layers.1", dtype: torch.dtype = torch.float32) -> Change:
    def spoil(weights: Weights) -> Weights:
        name = next(name for name in weights if part in name)
        spoiled = weights[name].to(dtype, copy=True)
        spoiled.view(-1)[-1] = value
        return {**weights, name: spoiled}

    return lambda folder: change_weights(folder, spoil)


def as_type(dtype: torch.dtype) -> Change:
    return lambda folder: change_weights(folder, lambda weights: {n: tensor.to(dtype) for n, tensor in weights.items()})


def without_tokenizer(folder: Path) -> None:
    for path in (*folder.glob("tokenizer*"), *folder.glob("special*"), *folder.glob("chat*")):
        path.unlink()


def as_adapter(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    change_json(folder, "adapter_config.json", peft_type="LORA", base_model_name_or_path="gpt2")


def as_encoder_decoder(folder: Path) -> None:
    config = T5Config(vocab_size=300, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8)
    T5ForConditionalGeneration(config).save_pretrained(folder)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoiled_shard(folder: Path) -> None:
    with_value(float("nan"))(folder)
    shard_weights(folder)


NAN, INF = float("nan"), float("inf")
# What is odd, and parts of what is said of it.
BAD: dict[str, tuple[Change, tuple[str, ...]]] = {
    "no tokenizer": (without_tokenizer, ("has no tokenizer", "Copy tokenizer.json")),
    "a tokenizer without EOS": (
        lambda folder: with_tokenizer(folder, eos=False),
        ("the tokenizer of `model` has no end-of-sequence token", "eos_token", "--data.eos as-is"),
    ),
    "an EOS that the model does not embed": (
        lambda folder: change_json(folder, "tokenizer_config.json", eos_token="</end>"),
        ("(`</end>`), but the model embeds", "resize_token_embeddings"),
    ),
    "a larger tokenizer": (
        lambda folder: (with_added_tokens("Question")(folder), None),
        ("text.jsonl:", "(`Question`), but the model embeds", "resize_token_embeddings"),
    ),
    "embeddings of another size than config.json says": (
        lambda folder: change_json(folder, vocab_size=400),
        ("another shape than config.json says", "Restore the config.json"),
    ),
    "no embeddings": (lambda folder: change_json(folder, vocab_size=0), ("0 tokens (vocab_size)", "restore")),
    "no positions": (lambda folder: change_json(folder, max_position_embeddings=0), ("0 positions", "restore")),
    "weights missing": (
        lambda folder: change_weights(folder, lambda weights: {n: w for n, w in weights.items() if "norm" not in n}),
        ("of the model are not in the files", "restore the files"),
    ),
    "weights of another shape": (
        lambda folder: change_json(folder, intermediate_size=32),
        ("another shape than config.json says",),
    ),
    "weights cut short": (
        lambda folder: cut_short(folder / "model.safetensors"),
        ("weights of `model` cannot be loaded", "copy or download it again"),
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), ("holds no weights",)),
    "a shard is not there": (lambda folder: shard_weights(folder)[1].unlink(), ("cannot be loaded",)),
    "a shard cut short": (lambda folder: cut_short(shard_weights(folder)[1]), ("cannot be loaded", "download it")),
    "NaN": (with_value(NAN), ("the weights of `model` are broken: 1 of the", "layers.1", "NaN or infinite")),
    "infinity": (with_value(INF, "lm_head"), ("1 of the", "lm_head.weight", "NaN or infinite")),
    "NaN in bfloat16": (with_value(NAN, "embed", torch.bfloat16), ("embed_tokens.weight", "NaN or infinite")),
    "minus infinity in float16": (with_value(-INF, "embed", torch.float16), ("embed_tokens.weight", "NaN or infinite")),
    "NaN in a shard": (spoiled_shard, ("layers.1", "NaN or infinite")),
    "a pickle": (pickle_weights, ("pytorch_model.bin alone, which is a pickle", "model.safetensors")),
    "whole numbers without a word": (as_type(torch.int8), ("are quantised", "int8")),
    "eight bits without a word": (as_type(torch.float8_e4m3fn), ("are quantised", "float8_e4m3fn")),
    "quantised": (
        lambda folder: change_json(folder, quantization_config={"quant_method": "gptq"}),
        ("are quantised (gptq)", "name the model that these were made from"),
    ),
    "an adapter alone": (as_adapter, ("of `gpt2`, the model of the adapter in", "base_model_name_or_path")),
    "an encoder-decoder": (as_encoder_decoder, ("is a t5 model, which is no causal language model",)),
    "config.json cut short": (lambda folder: cut_short(folder / "config.json"), ("config.json", "restore")),
    "an architecture of next year": (
        lambda folder: change_json(folder, model_type="next-year"),
        ("next-year", "cannot be loaded"),
    ),
    "a pad id that is no token": (
        lambda folder: change_json(folder, pad_token_id=9999),
        ("pad_token_id in config.json is no token of the model",),
    ),
    "generation settings cut short": (
        lambda folder: cut_short(folder / "generation_config.json"),
        ("generation_config.json of `model` cannot be loaded",),
    ),
    "an end of answers that is no number": (
        lambda folder: change_json(folder, "generation_config.json", eos_token_id=["</s>"]),
        ("eos_token_id is ['</s>']", "mend generation_config.json"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_an_odd_model_is_refused_before_any_work(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    change, parts = BAD[case]
    assert train(change) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("[transformers]", "Writing"))]
    said = [line for line in said if line.strip()]  # a progress bar of the library's leaves an empty one
    assert len(said) == 1 and said[0].startswith("tiltlm: ") and said[0].endswith(".")
    assert all(part in said[0] for part in parts), said[0]
    assert not Path("runs").exists()


@pytest.mark.parametrize("words", [(), ("--model.reference", "other")])
def test_a_reference_is_looked_at_as_early(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with_value(NAN)(save_tiny(Path("other")))
    if not words:
        with pytest.raises(WorkBeganError):
            train(lambda folder: None)
        return
    assert train(lambda folder: None, words=words) == 1
    assert "the weights of `other` are broken" in capsys.readouterr().err and not Path("runs").exists()


# Limits of the model, and words of the settings


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ((), "data.max_length is 512, but the model knows 64 positions: lower it."),
        (("--data.max_length", "65"), "data.max_length is 65, but the model knows 64 positions: lower it."),
        (("--data.max_length", "64"), "comparison.max_new_tokens is 128, but the model knows 64 positions"),
        (("--data.max_length", "64", "--comparison.max_new_tokens", "64"), "comparison.max_new_tokens is 64, but"),
    ],
)
def test_a_context_shorter_than_what_is_asked(
    words: tuple[str, ...], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(lambda folder: change_json(folder, max_position_embeddings=64), words=words) == 2
    assert part in capsys.readouterr().err and not Path("runs").exists()


def test_a_context_shorter_than_all_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"Q {n} ", "chosen": "yes, " * 99, "rejected": "no, " * 99} for n in range(9)]
    Path("text.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ("--data.max_length", "64", "--comparison.max_new_tokens", "8")
    assert train(lambda folder: change_json(folder, max_position_embeddings=64), words=words) == 1
    error = capsys.readouterr().err
    assert "no pair is left for training" in error and "text.jsonl:" in error and "completion too long" in error
    assert not Path("runs").exists()


# Chat templates

BAD_TEMPLATES = {
    "cut off": ("{% for m in messages %}\n{{ m.role ", "line 2: "),
    "an unknown filter": ("{{ messages | nofilter }}", "No filter named 'nofilter'"),
    "an unknown tag": ("{% frobnicate %}", "line 1: "),
    "a flood": (CHAT_TEMPLATE + "{{ 'a' * 2000000 }}", "it writes 2,000,"),
    "a loop that takes too long": (
        "{% for i in range(1000) %}{% for j in range(700) %}{% if j > i %}{% endif %}{% endfor %}{% endfor %}",
        "it takes more than 0.01 seconds to write a chat of one message",
    ),
}


@pytest.mark.parametrize("case", BAD_TEMPLATES)
def test_a_template_that_cannot_be_used(
    case: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, part = BAD_TEMPLATES[case]
    if case.startswith("a loop"):
        monkeypatch.setattr(templates, "LONGEST_PROBE", 0.01)
    assert train(with_template(text), "chats.jsonl") == 2
    error = capsys.readouterr().err
    assert error.startswith("tiltlm: the model's chat template cannot be used: ") and part in error
    assert error.endswith("Mend it, or give another by --model.chat_template FILE.\n")
    assert not Path("runs").exists()
    if case.startswith("a loop"):
        time.sleep(0.5)  # it comes to its end


def test_a_template_that_cannot_be_used_does_no_harm_to_text() -> None:
    with pytest.raises(WorkBeganError):
        train(with_template(BAD_TEMPLATES["cut off"][0]))


def test_a_template_that_refuses_every_chat_lists_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(with_template("{{ raise_exception('never') }}"), "chats.jsonl") == 1
    assert "refused by the chat template (it says: never)" in capsys.readouterr().err and not Path("runs").exists()


# What is odd and does no harm


def padded(folder: Path) -> None:
    model: Any = LlamaForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(512)
    model.save_pretrained(folder)


GOOD: dict[str, tuple[Change, tuple[str, ...]]] = {
    "embeddings padded to a round number": (padded, ()),
    "tokens added that no text holds": (with_added_tokens("<note>", "</note>"), ()),
    "no EOS, and none asked for": (lambda folder: with_tokenizer(folder, eos=False), ("--data.eos", "as-is")),
    "tied": (lambda folder: save_tiny(folder, tie_word_embeddings=True), ()),
    "an end of answers beyond the embeddings": (
        lambda folder: change_json(folder, "generation_config.json", eos_token_id=[1, 9999]),
        (),
    ),
    "several files": (shard_weights, ()),
    "float64": (as_type(torch.float64), ()),
    "buffers of an older version": (
        lambda folder: change_weights(folder, lambda w: {**w, "model.rotary_emb.inv_freq": torch.ones(4)}),
        (),
    ),
}


@pytest.mark.parametrize("case", GOOD)
def test_what_is_merely_odd_is_trained(case: str) -> None:
    change, words = GOOD[case]
    with pytest.raises(WorkBeganError):
        train(change, words=words)


def test_a_sound_model_is_not_loaded_to_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def loads(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("tiltlm.model.soundness.load_model", loads)
    for settings in ({}, {"tie_word_embeddings": True}):
        require_sound(find_model(str(save_tiny(Path("sound"), **settings)), HubConfig()))
    with_value(NAN)(Path("sound"))
    with pytest.raises(ModelError, match="NaN or infinite"):
        require_sound(find_model("sound", HubConfig()))
