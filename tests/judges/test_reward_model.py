"""A reward model gives every answer what it gives it alone, whatever it takes for padding; and no random rewards."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny_templates as templates
import torch
from hostile import SCRIPT
from tiny_folders import change_json, pickle_weights, save_tiny
from tiny_tokenizers import CHAT_TEMPLATE, byte_level
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from tiltlm.config import HubConfig
from tiltlm.config.judge_words import judge_word
from tiltlm.data.examples import Message
from tiltlm.errors import ConfigError, JudgeError, ModelError
from tiltlm.judges.choosing import require_reward
from tiltlm.judges.judge_interface import Asked
from tiltlm.judges.reward_model import RewardModel

EOS = 1
ASKED = [
    Asked("Human: is it so?", None, " yes"),
    Asked("Human: is it so?", None, " no, the answer is no"),
    Asked("Human: why?", None, " yes yes yes yes"),
    Asked("Human: why?", None, ""),
    Asked("Human: hm?", None, " no"),
    Asked("Human: is it so?", None, " yes<eos>"),
    Asked("Human: so it is?", None, " no!"),
]
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.3,
}


def saved(folder: Path, kind: str, tokenizer: PreTrainedTokenizerFast, labels: int = 1, **settings: Any) -> Path:
    torch.manual_seed(0)
    common: dict[str, Any] = {"vocab_size": len(tokenizer), "num_labels": labels, "eos_token_id": EOS, **settings}
    if kind == "llama":
        model: Any = LlamaForSequenceClassification(LlamaConfig(**SIZES, num_key_value_heads=1, **common))
    elif kind == "gpt2":
        sizes: dict[str, Any] = {"n_embd": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.3}
        model = GPT2ForSequenceClassification(GPT2Config(**sizes, **common))
    else:
        common = {"pad_token_id": 0, **common}
        model = BertForSequenceClassification(BertConfig(**SIZES, **common))
    torch.nn.init.normal_((model.score if hasattr(model, "score") else model.classifier).weight, std=1.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def judge(folder: Path, **options: Any) -> RewardModel:
    return RewardModel(judge_word(f"model:{folder}"), HubConfig(), **options)


def alone(folder: Path, text: str, special: bool = True) -> list[float]:
    """The slow oracle: stock transformers, one text at a time, no padding."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    found = tokenizer(text, return_tensors="pt", add_special_tokens=special)
    with torch.no_grad():
        logits: list[float] = model(**found).logits[0].tolist()
    return logits


@pytest.mark.parametrize("pad", [None, EOS, 5])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_reward_is_that_of_the_answer_alone(kind: str, pad: int | None, side: str, tmp_path: Path) -> None:
    """With a padding token, without one, and with one that ends texts: batches change nothing."""
    tokenizer = byte_level()
    tokenizer.padding_side = side
    folder = saved(tmp_path / "m", kind, tokenizer, pad_token_id=pad)
    found = judge(folder, form="joined")
    done: list[int] = []
    rewards = found.rewards(ASKED, done.append)
    assert sum(done) == len(ASKED)
    expected = [alone(folder, f"{one.prompt}{one.answer}")[0] for one in ASKED]
    assert rewards == pytest.approx(expected, abs=1e-5)
    # They differ, so a mix-up would be seen; but a model that pads with EOS does not see one at the end, even alone.
    assert len({round(value, 4) for value in rewards}) == len(ASKED) - (pad == EOS)
    assert found.remarks() == []


def test_an_encoder_too_and_as_a_pair_of_texts(tmp_path: Path) -> None:
    tokenizer = byte_level(pad="<eos>")
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    folder = saved(tmp_path / "m", "bert", tokenizer)
    for form in ("joined", "pair", "answer"):
        shown = [one for one in ASKED if one.answer]
        rewards = judge(folder, form=form).rewards(shown)
        model: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        stock = PreTrainedTokenizerFast.from_pretrained(folder)
        for one, reward in zip(shown, rewards, strict=True):
            texts = {"joined": [one.prompt + one.answer], "pair": [one.prompt, one.answer], "answer": [one.answer]}
            with torch.no_grad():
                logit = float(model(**stock(*texts[form], return_tensors="pt")).logits)
            assert reward == pytest.approx(logit, abs=1e-5), form


def test_a_chat_is_written_by_the_models_template(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", "llama", byte_level(chat_template=CHAT_TEMPLATE))
    chat = (Message("user", "is it so?"), Message("assistant", "no"), Message("user", "why?"))
    asked = [
        Asked("...", chat, "yes"),
        Asked("\n\nHuman: is it so?\n\nAssistant: no\n\nHuman: why?\n\nAssistant:", None, " yes"),
    ]
    text = "<user>is it so?<eos>\n<assistant>no<eos>\n<user>why?<eos>\n<assistant>yes<eos>\n"
    expected = alone(folder, text, special=False)[0]
    assert judge(folder).rewards(asked) == pytest.approx([expected, expected], abs=1e-5)


def test_two_labels_are_log_odds(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", "llama", byte_level(), labels=2)
    asked = ASKED[:3]
    logits = [alone(folder, one.prompt + one.answer) for one in asked]
    by_default = judge(folder, form="joined")
    assert by_default.rewards(asked) == pytest.approx([one[1] - one[0] for one in logits], abs=1e-5)
    assert "LABEL_1" in by_default.describes
    named = judge(folder, form="joined", label="label_0")
    assert named.rewards(asked) == pytest.approx([one[0] - one[1] for one in logits], abs=1e-5)
    assert named.facts() != by_default.facts()
    config = json.loads((folder / "config.json").read_text())
    config |= {"id2label": {"0": "POSITIVE", "1": "NEGATIVE"}, "label2id": {"POSITIVE": 0, "NEGATIVE": 1}}
    (folder / "config.json").write_text(json.dumps(config))
    assert judge(folder, form="joined").rewards(asked) == pytest.approx([one[0] - one[1] for one in logits], abs=1e-5)


def test_of_two_labels_with_names_one_must_be_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", "llama", byte_level(), labels=2)
    config = json.loads((folder / "config.json").read_text())
    config |= {"id2label": {"0": "safe", "1": "toxic"}, "label2id": {"safe": 0, "toxic": 1}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"2 labels \(safe, toxic\), .* --label .*comparison.reward takes no label"):
        judge(folder)
    assert judge(folder, label="safe").describes == "the log-odds of its label safe"


def test_of_several_labels_one_must_be_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", "llama", byte_level(), labels=3)
    with pytest.raises(ConfigError, match=r"has 3 labels \(LABEL_0, LABEL_1, LABEL_2\), and .* --label"):
        judge(folder)
    with pytest.raises(ConfigError, match=r"no label `LABEL_7`; it has .* Did you mean `LABEL_\d`\?"):
        judge(folder, label="LABEL_7")
    logits = alone(folder, ASKED[0].prompt + ASKED[0].answer)
    p = math.exp(logits[2]) / sum(math.exp(logit) for logit in logits)
    assert judge(folder, form="joined", label="LABEL_2").rewards(ASKED[:1]) == pytest.approx(
        [math.log(p / (1 - p))], abs=1e-5
    )
    single = saved(tmp_path / "one", "llama", byte_level())
    with pytest.raises(ConfigError, match="has one label"):
        judge(single, label="LABEL_0")


def test_what_is_too_long_loses_its_start_and_is_counted(tmp_path: Path) -> None:
    tokenizer = byte_level()
    folder = saved(tmp_path / "m", "llama", tokenizer, max_position_embeddings=12)
    long = Asked("Human: " + "is it so? " * 9, None, " yes")
    found = judge(folder, form="joined")
    rewards = found.rewards([long, ASKED[0]])
    ids = tokenizer(long.prompt + long.answer)["input_ids"][-12:]
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        assert rewards[0] == pytest.approx(float(model(input_ids=torch.tensor([ids])).logits), abs=1e-5)
    (remark,) = found.remarks()
    assert remark.startswith("1 texts were longer than the 12 tokens") or "2 texts" in remark


def test_a_language_model_gives_no_rewards(tmp_path: Path) -> None:
    """transformers would give it an output layer of random numbers."""
    folder = save_tiny(tmp_path / "lm")
    with pytest.raises(ModelError, match="is a LlamaForCausalLM, which gives no rewards"):
        judge(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForSequenceClassification"]}))
    with pytest.raises(ModelError, match=r"holds no score.weight, which gives the rewards"):
        judge(folder, form="joined").rewards(ASKED[:1])
    with pytest.raises(ModelError, match=r"holds no score.weight"):  # before a training, not after it
        require_reward(f"model:{folder}", HubConfig())
    require_reward(f"model:{saved(tmp_path / 'm', 'bert', byte_level())}", HubConfig())


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    folder = pickle_weights(saved(tmp_path / "m", "llama", byte_level()))
    with pytest.raises(ModelError, match="which is a pickle"):
        judge(folder)


def test_code_that_comes_with_a_reward_model_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    mark, folder = tmp_path / "ran", saved(tmp_path / "m", "llama", byte_level())
    (folder / "evil.py").write_text(SCRIPT.format(mark=str(mark)))
    maps = {"AutoConfig": "evil.C", "AutoModelForSequenceClassification": "evil.M", "AutoTokenizer": ["evil.T", None]}
    change_json(folder, auto_map=maps)
    change_json(folder, "tokenizer_config.json", auto_map=maps)
    assert len(judge(folder, form="joined").rewards(ASKED)) == len(ASKED)
    change_json(folder, model_type="own")
    with pytest.raises(ModelError, match="trust"):
        judge(folder)
    assert not mark.exists()


def test_a_reward_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", "llama", byte_level())
    found = judge(folder, form="joined")
    found.rewards(ASKED[:1])
    assert found._model is not None
    torch.nn.init.constant_(found._model.score.weight, float("nan"))  # type: ignore[arg-type, union-attr]
    with pytest.raises(JudgeError, match="gives nan for ' yes'"):
        found.rewards(ASKED[:1])


def test_the_digest_is_of_the_weights(tmp_path: Path) -> None:
    one = saved(tmp_path / "m", "llama", byte_level())
    before = judge(one).facts()
    assert before["form"] == "joined" and judge(one).facts() == before
    model: Any = AutoModelForSequenceClassification.from_pretrained(one)
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(one)
    assert judge(one).facts()["weights"] != before["weights"]


def test_the_digest_is_of_tokenizer_and_template_too(tmp_path: Path) -> None:
    one, tokenizer = saved(tmp_path / "m", "llama", byte_level()), byte_level()
    digests = [judge(one).facts()["weights"]]
    tokenizer.chat_template = templates.PLAIN
    tokenizer.save_pretrained(one)
    digests.append(judge(one).facts()["weights"])
    tokenizer.chat_template = templates.TRIMS
    tokenizer.save_pretrained(one)
    digests.append(judge(one).facts()["weights"])
    tokenizer.add_tokens(["<one more>"])
    tokenizer.save_pretrained(one)
    digests.append(judge(one).facts()["weights"])
    assert len(set(digests)) == 4


def test_what_cannot_be_had_is_said(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", "llama", byte_level())
    with pytest.raises(ConfigError, match="has no chat template"):
        judge(folder, form="chat")
    with pytest.raises(ModelError, match="there is no model folder"):
        judge(tmp_path / "none")
    with pytest.raises(JudgeError, match="it has no tokens"):
        judge(folder, form="answer").rewards([Asked("x", None, "")])
