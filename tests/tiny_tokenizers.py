"""Small tokenizers with the parts real ones differ in, built in milliseconds. For tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tiltlm.config import DataConfig
from tiltlm.data.examples import Example
from tiltlm.data.tokens.rendering import RenderedExample
from tiltlm.data.tokens.token_columns import TokenizedExample
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.runs.data_account import DroppedRow

Template = str | dict[str, str] | None
"""A chat template, a choice of them by name, or none."""
BOS, EOS, UNK = "<bos>", "<eos>", "<unk>"

# Every turn ends with the end-of-turn token and a newline, as ChatML's do.
CHAT_TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)

# Repeated, so that the words and the headers become single tokens.
_SENTENCES = ["\n\nHuman: is the answer yes or no?\n\nAssistant: yes, the answer is yes.", "Answer: yes", "no"] * 8


def byte_level(
    bos: bool = False, chat_template: Template = None, pad: str | None = None, eos: bool = True
) -> PreTrainedTokenizerFast:
    """A byte-level BPE, as GPT-2's and Llama 3's: every text is encoded, and decoded to itself.

    bos: begin every text with BOS, by a post-processor.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    return _wrapped(tokenizer, bos, chat_template, pad, eos)


def word_level(*words: str, bos: bool = False, chat_template: Template = None) -> PreTrainedTokenizerFast:
    """One token a word or punctuation mark; what is not in `words` is `<unk>`, and white space is nothing."""
    vocabulary = {word: number for number, word in enumerate((UNK, BOS, EOS, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([UNK, BOS, EOS])
    return _wrapped(tokenizer, bos, chat_template, None, True)


def pair_tokenizer(tokenizer: PreTrainedTokenizerFast, **settings: Any) -> ExampleTokenizer:
    """The pair tokenizer of these data settings."""
    return ExampleTokenizer(tokenizer, DataConfig(**settings))


@dataclass(frozen=True)
class Outcomes:
    """What became of examples, with their texts: `rendered[i]` is the text of `examples[i]`."""

    examples: list[TokenizedExample]
    rendered: list[RenderedExample]
    dropped: list[DroppedRow]


def outcomes(tokenizer: ExampleTokenizer, *examples: Example) -> Outcomes:
    """What becomes of these examples."""
    both = list(tokenizer.outcomes(examples))
    used = [one for one in both if not isinstance(one, DroppedRow)]
    dropped = [one for one in both if isinstance(one, DroppedRow)]
    return Outcomes([one[0] for one in used], [one[1] for one in used], dropped)


def _wrapped(
    tokenizer: Tokenizer, bos: bool, chat_template: Template, pad: str | None, eos: bool
) -> PreTrainedTokenizerFast:
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS if bos else None,
        eos_token=EOS if eos else None,
        pad_token=pad,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = chat_template
    return fast
