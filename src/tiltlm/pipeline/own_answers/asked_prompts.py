"""Prompts as a model is asked them: whole, or left out with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tiltlm.data.examples import Message, Text
from tiltlm.data.prompt_rows import GivenPrompt
from tiltlm.data.tokens.rendering import REFUSED
from tiltlm.data.tokens.templates import TemplateRefusalError
from tiltlm.data.tokens.tokenization import ExampleTokenizer
from tiltlm.data.turns import as_chat
from tiltlm.errors import ConfigError
from tiltlm.runs.data_account import DroppedRow

Form = Literal["auto", "chat", "text"]
"""What becomes of a prompt that is text: what a user of a chat says, or text as it stands. `auto`: text that stands
alone is a chat where the model has a chat template; text of preference data stands as it is, as training takes it."""


@dataclass(frozen=True, slots=True)
class AskedPrompt:
    """A prompt with the tokens that a model is given."""

    id: str
    prompt: Text
    tools: str | None
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """The prompts that are asked, those that are not and why, and what a user should know of those that are.

    chats: how many are chats.
    """

    prompts: list[AskedPrompt]
    left_out: list[DroppedRow]
    notes: list[str]

    @property
    def chats(self) -> int:
        return sum(not isinstance(one.prompt, str) for one in self.prompts)


def asked(given: Sequence[GivenPrompt], tokenizer: ExampleTokenizer, room: int | None, form: Form = "auto") -> Asked:
    """Prompts rendered by the model's chat template and tokenized. None is cut: an answer to a part of a prompt would
    be taken for one to the whole.

    room: most tokens of a prompt; None where the model has no limit.

    Raises:
        ConfigError: chats are to be text; or the model has several chat templates, and none is chosen.
    """
    result, lost = Asked([], [], []), Counter[str]()
    for one in given:
        prompt = _in_form(one, form, tokenizer.template.exists)
        try:
            text, _ = tokenizer.render_prompt(prompt, one.tools)
            losses = [] if isinstance(prompt, str) else tokenizer.renderer.lost_of_prompt(prompt, one.tools)
        except TemplateRefusalError as refusal:
            result.left_out.append(DroppedRow(one.id, REFUSED, f"it says: {refusal}"))
            continue
        ids = tokenizer.encoder.prompt(text)
        if not ids:
            result.left_out.append(DroppedRow(one.id, "empty prompt", "no token of it is left"))
        elif room is not None and len(ids) > room:
            detail = f"{len(ids)} tokens, and the model has room for {room} besides the answer"
            result.left_out.append(DroppedRow(one.id, "prompt too long", detail))
        else:
            lost.update({loss.what for loss in losses})
            result.prompts.append(AskedPrompt(one.id, prompt, one.tools, tuple(ids)))
    name = tokenizer.template.name
    result.notes.extend(f"The {name} leaves out {what} of {count} prompts." for what, count in lost.most_common())
    return result


def _in_form(given: GivenPrompt, form: Form, template: bool) -> Text:
    if not isinstance(given.prompt, str):
        if form == "text":
            raise ConfigError(f"--form text: {given.id} is a chat, which the chat template writes: leave --form out.")
        return given.prompt
    said: tuple[Message, ...] | str = given.prompt
    if form == "chat" or (form == "auto" and given.alone and template):
        said = as_chat(given.prompt)
    return said
