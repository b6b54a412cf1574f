"""A judge that is a reward model: a transformers sequence classifier, in float32."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import xxhash
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from tiltlm.config import HubConfig
from tiltlm.config.judge_words import JudgeWord
from tiltlm.config.suggestions import nearest
from tiltlm.errors import ConfigError, JudgeError, ModelError
from tiltlm.judges.judge_interface import Advance, Asked
from tiltlm.judges.shown_texts import Form, chosen_form, shown_ids
from tiltlm.model.finding import CONFIG, ModelSource, explained, find_model
from tiltlm.model.loading import choose_device, load_tokenizer
from tiltlm.model.weight_files import require_safe_weights, safe_files
from tiltlm.model.weights import HEADS, explain_report, read_reported

BATCH_TOKENS = 4096
"""Most tokens in one pass, unless one text has more."""
_POSITIVE = "POSITIVE"


@dataclass(frozen=True, slots=True)
class Output:
    """Which number of the model is the reward.

    label: the place of the label whose log-odds it is; None where the model gives one number, which is it.
    independent: whether every label is a question of its own, so that its logit is its log-odds.
    """

    label: int | None
    independent: bool = False

    def rewards(self, logits_BL: Tensor) -> Tensor:
        """Of each row: the score; or log p/(1 - p) of the label, where p is its probability among all labels. Of two
        labels that is the difference of their logits. Shape (B,)."""
        if self.label is None:
            return logits_BL[:, 0]
        own_B = logits_BL[:, self.label]
        if self.independent:
            return own_B
        others = [place for place in range(logits_BL.shape[1]) if place != self.label]
        return own_B - logits_BL[:, others].logsumexp(1)


class RewardModel:
    """`model:NAME`: the score of the model's one label, or the log-odds of one of several.

    Texts of one length make up a batch, so nothing is padded: a reward is that of the answer alone, whatever the
    model takes padding for, and whether it has a token for it or not.
    """

    def __init__(
        self, word: JudgeWord, hub: HubConfig, label: str | None = None, form: Form = "auto", device: str = "cpu"
    ) -> None:
        """Finds the model and reads its configuration; weights are read when the first answer is judged.

        label: which of several labels counts. form: how prompt and answer are put together.

        Raises:
            ModelError: it cannot be had, is no sequence classifier, or its weights are not safe to read.
            ConfigError: the label is not one of the model's, or has to be named; or the form cannot be had.
        """
        self.name = word.word
        self._source = _found(word.target, hub)
        require_safe_weights(self._source)
        self._config = _configuration(self._source)
        self._tokenizer = load_tokenizer(self._source)
        self._form = chosen_form(form, self._tokenizer, self.name)
        self._output = _output(self._config, label, self.name)
        self._device = choose_device(device)
        self._longest = _longest(self._config, self._tokenizer)
        self._model: PreTrainedModel | None = None
        self._digest: str | None = None
        self._cut = 0

    def require_head(self) -> None:
        """Looks at the names of the weights, before any of them is read.

        Raises:
            ModelError: the layer that gives the rewards is not among them.
        """
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(self._config)
        heads = [name for name, _ in model.named_parameters() if name.startswith(HEADS)]
        names: set[str] = set()
        for path in safe_files(self._source) or []:
            with safe_open(path, "pt") as file:
                names.update(file.keys())
        if names and heads and not names & set(heads):
            raise ModelError(
                f"`{self._source.location}` holds no {heads[0]}, which gives the rewards: it is a language model, or "
                "the body of a reward model alone. Name one that was trained to give rewards."
            )

    @property
    def describes(self) -> str:
        """Which number is the reward, in words."""
        if self._output.label is None:
            return "the score that the model gives"
        return f"the log-odds of its label {self._config.id2label[self._output.label]}"

    def facts(self) -> dict[str, object]:
        """The digest of weights and tokenizer, the form of the texts, and the label."""
        if self._digest is None:
            self._digest = _digest(self._source, self._tokenizer)
        label = None if self._output.label is None else str(self._config.id2label[self._output.label])
        return {"weights": self._digest, "form": self._form, "label": label}

    def rewards(self, asked: Sequence[Asked], advance: Advance = lambda done: None) -> list[float]:
        """The reward of each answer, shape (answers,), in float32.

        Raises:
            ModelError: the weights cannot be used.
            JudgeError: a reward is not finite, or a text has no tokens.
        """
        model = self._loaded()
        texts = [shown_ids(one, self._form, self._tokenizer, self._longest) for one in asked]
        self._cut += sum(text.cut for text in texts)
        found = [0.0] * len(texts)
        for batch in _batches([len(text.ids) for text in texts]):
            if not texts[batch[0]].ids:
                raise JudgeError(
                    f"the judge `{self.name}` cannot read {asked[batch[0]].answer!r:.80}: it has no tokens."
                )
            ids_BT = torch.tensor([texts[number].ids for number in batch], device=self._device)
            types = [texts[number].types for number in batch]
            further = {"token_type_ids": torch.tensor(types, device=self._device)} if types[0] is not None else {}
            for number, reward in zip(batch, self._judged(model, ids_BT, further), strict=True):
                found[number] = reward
            advance(len(batch))
        for one, reward in zip(asked, found, strict=True):
            if not math.isfinite(reward):
                raise JudgeError(f"the judge `{self.name}` gives {reward} for {one.answer!r:.80}, which is no reward.")
        return found

    def remarks(self) -> list[str]:
        """How many texts were longer than the model reads."""
        if not self._cut:
            return []
        return [
            f"{self._cut} texts were longer than the {self._longest} tokens that the judge reads: cut at their start."
        ]

    def _judged(self, model: PreTrainedModel, ids_BT: Tensor, further: dict[str, Tensor]) -> list[float]:
        text = model.config.get_text_config()
        declared = text.pad_token_id
        if declared is None:
            # The models' own code wants one where there are several rows; one that is in none of them changes nothing.
            text.pad_token_id = _unused(ids_BT, text.vocab_size)
            if text.pad_token_id is None and len(ids_BT) > 1:
                rows = range(len(ids_BT))
                parts = [{name: kinds[row : row + 1] for name, kinds in further.items()} for row in rows]
                return [self._judged(model, ids_BT[row : row + 1], parts[row])[0] for row in rows]
        try:
            with torch.no_grad():
                logits_BL = model(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), **further).logits
        finally:
            text.pad_token_id = declared
        rewards: list[float] = self._output.rewards(logits_BL.float()).tolist()
        return rewards

    def _loaded(self) -> PreTrainedModel:
        if self._model is None:
            self.require_head()
            model, report = read_reported(self._source, torch.float32, {}, AutoModelForSequenceClassification)
            fault = explain_report(dataclasses.replace(report, unexpected=()))
            if fault is not None:
                raise ModelError(f"the weights of `{self._source.location}` cannot be used: {fault}")
            torch.nn.Module.to(model, self._device)
            self._model = model.eval()
        return self._model


def _found(name: str, hub: HubConfig) -> ModelSource:
    source = find_model(name, hub)
    if source.adapter is not None:
        raise ModelError(
            f"`{name}` is an adapter, and a judge has to be whole: merge it first (peft: merge_and_unload, then "
            "save_pretrained)."
        )
    return source


def _configuration(source: ModelSource) -> Any:
    with explained(source, "configuration"):
        config: Any = AutoConfig.from_pretrained(
            source.location, local_files_only=source.local_files_only, trust_remote_code=source.trust_remote_code
        )
    made = [str(name) for name in config.architectures or []]
    if config.model_type not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES or (
        made and not any("SequenceClassification" in name for name in made)
    ):
        what = f"a {made[0]}" if made else f"a {config.model_type} model"
        raise ModelError(
            f"`{source.location}` is {what}, which gives no rewards: name a sequence classifier (its config.json has "
            "an architecture ...ForSequenceClassification)."
        )
    return config


def _output(config: Any, label: str | None, name: str) -> Output:
    labels = [str(config.id2label[place]) for place in range(config.num_labels)]
    independent = config.problem_type == "multi_label_classification"
    if len(labels) == 1:
        if label is not None:
            raise ConfigError(f"the judge `{name}` has one label, and its score is the reward: leave the label out.")
        return Output(None)
    if label is not None:
        places = [place for place, own in enumerate(labels) if own.lower() == label.lower()]
        if len(places) != 1:
            meant = {own.lower(): own for own in labels}.get(nearest(label, [own.lower() for own in labels]) or "")
            hint = f" Did you mean `{meant}`?" if meant else ""
            raise ConfigError(f"the judge `{name}` has no label `{label}`; it has {', '.join(labels)}.{hint}")
        return Output(places[0], independent)
    positive = [place for place, own in enumerate(labels) if own.upper() == _POSITIVE]
    if len(positive) == 1:
        return Output(positive[0], independent)
    if labels == ["LABEL_0", "LABEL_1"]:  # nobody named them
        return Output(1, independent)
    raise ConfigError(
        f"the judge `{name}` has {len(labels)} labels ({', '.join(labels)}), and which one counts cannot be told: say "
        "so with --label (tiltlm judge). comparison.reward takes no label: name a model with one, or whose label is "
        f"called {_POSITIVE}, or a function of your own, FILE.py:FUNCTION."
    )


def _longest(config: Any, tokenizer: PreTrainedTokenizerFast) -> int | None:
    """Most tokens that the model reads; None where nothing says."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    own = tokenizer.model_max_length if tokenizer.model_max_length < 10**9 else None  # transformers' word for no limit
    known = [limit for limit in (positions, own) if limit is not None]
    return min(known) if known else None


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of texts of one length, in batches of at most BATCH_TOKENS; the longest first, which need most memory."""
    by_length: dict[int, list[int]] = {}
    for number, length in enumerate(lengths):
        by_length.setdefault(length, []).append(number)
    for length in sorted(by_length, reverse=True):
        own, size = by_length[length], max(1, BATCH_TOKENS // max(1, length))
        for start in range(0, len(own), size):
            yield own[start : start + size]


def _unused(ids_BT: Tensor, vocabulary: int) -> int | None:
    """A token that is in none of the texts; None where there is none, or a single text, which needs none."""
    if len(ids_BT) == 1:
        return None
    used = set(ids_BT.unique().tolist())
    return next((token for token in range(vocabulary) if token not in used), None)


def _digest(source: ModelSource, tokenizer: PreTrainedTokenizerFast) -> str:
    """Of the weights and the configuration, as they lie in files, the tokenizer and its chat template."""
    digest = xxhash.xxh3_128()
    for path in [source.file(CONFIG), *(safe_files(source) or [])]:
        if path is not None:
            with path.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    for state in ("padding", "truncation"):  # of the last call, not of the tokenizer
        rules.pop(state, None)
    special = sorted((name, str(token)) for name, token in tokenizer.special_tokens_map.items())
    digest.update(json.dumps([rules, special, tokenizer.chat_template], sort_keys=True).encode())
    return digest.hexdigest()
