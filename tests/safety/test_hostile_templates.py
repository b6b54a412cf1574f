"""A model's chat template is a program of somebody else: it is run where it reaches nothing but the chat."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tiny_templates import PLAIN
from tiny_tokenizers import byte_level

from tiltlm.data.examples import Message
from tiltlm.data.tokens.templates import ChatTemplate, TemplateRefusalError

CHAT = (Message("user", "hello"),)
ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ cycler.__init__.__globals__['os'].system('touch MARK') }}",
    "{{ lipsum.__globals__['os'].system('touch MARK') }}",
    "{{ self.__init__.__globals__.__builtins__.open('MARK', 'w') }}",
    "{{ raise_exception.__globals__['os'].system('touch MARK') }}",
    "{{ strftime_now.__globals__['datetime'] }}",
    "{{ (messages | attr('__class__') | attr('__base__')).__subclasses__() }}",
    "{% set f = '{0.__class__.__mro__}'.format %}{{ f(messages)[1] }}",
    "{{ joiner.__init__.__globals__ }}",
    "{% include 'MARK' %}",
    "{% import 'MARK' as m %}",
    "{% extends 'MARK' %}",
    "{{ open('MARK', 'w') }}",
    "{{ __import__('os').system('touch MARK') }}",
]
CHANGES = ["{{ messages.append(1) }}", "{{ messages[0].update(content='') }}", "{{ messages[0].pop('content') }}"]
TOO_MUCH = [
    "{% for a in range(10000000) %}{{ a }}{% endfor %}",
    "{{ 'a' * 10 ** 13 }}",
    "{{ 'a' | center(10 ** 13) }}",
    "{{ 'a' * 20000000 }}",
]


def rendered(template: str) -> str:
    return ChatTemplate(byte_level(chat_template=template)).render(CHAT)


@pytest.mark.parametrize("template", ESCAPES)
def test_a_template_reaches_nothing_but_the_chat(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of these works, or reads what it should not, in an environment that is no sandbox."""
    monkeypatch.chdir(tmp_path)
    try:
        text = rendered(template)
    except TemplateRefusalError:
        text = ""
    assert "<class" not in text and "module" not in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("template", CHANGES)
def test_a_template_changes_nothing(template: str) -> None:
    with pytest.raises(TemplateRefusalError, match="unsafe"):
        rendered(template)


@pytest.mark.parametrize("template", TOO_MUCH)
def test_a_template_that_makes_too_much_is_refused_in_words(template: str) -> None:
    with pytest.raises(TemplateRefusalError, match=r"Range too big|MemoryError|characters of one chat"):
        rendered(template)


def test_every_template_is_run_in_the_immutable_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[type] = []
    compiled = ImmutableSandboxedEnvironment.from_string

    def watched(environment: ImmutableSandboxedEnvironment, *arguments: object, **options: object) -> object:
        seen.append(type(environment))
        return compiled(environment, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ImmutableSandboxedEnvironment, "from_string", watched)
    assert rendered(PLAIN + "{# as no other test has it #}") == "<user>hello<eos>\n"
    assert seen == [ImmutableSandboxedEnvironment]
