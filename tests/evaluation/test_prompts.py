"""Prompts to be answered are written as the training data was, and by the template's own way to ask."""

from __future__ import annotations

import pytest
import tiny_templates
from tiny_tokenizers import EOS, byte_level, outcomes, pair_tokenizer

from tiltlm.data.examples import Example, Message
from tiltlm.errors import ConfigError
from tiltlm.evaluation.prompts import extra_prompts, held_out_prompts


def extra(text: str, template: str | None, chat: bool = True) -> str:
    tokenizer = pair_tokenizer(byte_level(chat_template=template))
    (prompt,) = extra_prompts([text], chat, tokenizer, None)
    assert byte_level().decode(list(prompt.ids)) == prompt.text and not prompt.counted
    return prompt.text


def test_a_persons_own_prompt() -> None:
    asked = f"<user>Hi{EOS}\n<assistant>"
    assert extra("Hi", tiny_templates.PLAIN) == extra("\n\nHuman: Hi\n\nAssistant:", tiny_templates.PLAIN) == asked
    assert extra("Hi", tiny_templates.CUTS_AND_OPENS) == asked + "<think>\n"
    assert extra("Hi", tiny_templates.PLAIN, chat=False) == "Hi"
    with_system = "Be brief.\n\nHuman: Hi\n\nAssistant:"
    assert extra(with_system, tiny_templates.PLAIN) == f"<system>Be brief.{EOS}\n{asked}"


def test_a_prompt_that_the_template_refuses_is_named_with_its_words() -> None:
    with pytest.raises(ConfigError, match=r"prompt 1 \('Be brief.*refused .*System role not supported"):
        extra("Be brief.\n\nHuman: Hi\n\nAssistant:", tiny_templates.NO_SYSTEM)


def test_a_prompt_of_which_the_model_would_see_a_part_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"prompt 1: .*leaves out the text of system messages"):
        extra("Be brief.\n\nHuman: Hi\n\nAssistant:", tiny_templates.TWO_ROLES)


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ConfigError, match="prompt 1 is empty"):
        extra(" \n", None)


@pytest.mark.parametrize(
    "template", [tiny_templates.PLAIN, tiny_templates.CUTS_AND_OPENS, tiny_templates.CLOSES_THOUGHT]
)
def test_held_out_prompts_ask_in_the_templates_way(template: str) -> None:
    tokenizer = pair_tokenizer(byte_level(chat_template=template), max_length=48)
    long = (Message("user", " no" * 30), Message("assistant", "yes"), Message("user", "is it?"))
    pairs = [
        Example.pair(f"p:{n}", long, (Message("assistant", f"yes {n}"),), (Message("assistant", "no"),))
        for n in range(2)
    ]
    rendered = outcomes(tokenizer, *pairs).rendered
    assert len(rendered) == 2
    (prompt,) = held_out_prompts(rendered, 5, tokenizer, None)
    assert prompt.id == "p:0" and prompt.counted
    assert prompt.text == tokenizer.render_prompt(long[2:])[0] == byte_level().decode(list(prompt.ids))
