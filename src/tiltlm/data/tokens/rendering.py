"""An example as text: where the prompt ends and the completion begins, and what of it the chat template leaves out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tiltlm.data.examples import Example, Message, Text, contradictory
from tiltlm.data.formats.fields import RowError
from tiltlm.data.tokens.templates import PROBE, ChatTemplate, TemplateRefusalError, shared_start
from tiltlm.data.tokens.traces import REASONING, Loss, TraceFinder, is_of_an_answer, missing_of_text

LOST = "lost in the chat template"
REFUSED = "refused by the chat template"
REWRITTEN = "prompt rewritten once answered"
UNENDED = "cut in the middle"
RESTORED = "The chat template cuts the reasoning of answers, and it is put back where they begin, to be scored"

_DIALOGUE_HEADER = re.compile(r"\n\n[A-Z]\w*:\s*$")


@dataclass(frozen=True, slots=True)
class RenderedExample:
    """An example as plain text. The full texts are the prompt followed by each completion.

    header: the end of the prompt that asks for an answer, such as `\\n\\nAssistant:`.
    question: what a model is given to answer. It is the prompt, but for what the template writes to ask for an answer
        and leaves out, or writes in another way, once it is answered.
    source: the example that was rendered, with the turns that are left of it.
    remarks: what the template left out, in sentences.
    """

    id: str
    prompt: str
    completions: tuple[str, ...]
    header: str
    question: str
    source: Example
    remarks: tuple[str, ...] = ()


class Renderer:
    """Applies the chat template where an example is a chat; verbatim text stays as it is."""

    def __init__(self, template: ChatTemplate) -> None:
        self.template = template
        self._traces = TraceFinder(template)

    def render(self, example: Example) -> RenderedExample:
        """The example as text.

        Raises:
            RowError: the template refuses it, leaves out what should be trained on, or writes the prompt in another way
                once it is answered, so that nothing tells prompt and completion apart.
        """
        if isinstance(example.prompt, str):
            texts = tuple(text for text in example.completions if isinstance(text, str))
            prompt, header = self.prompt(example.prompt)
            return RenderedExample(example.id, prompt, texts, header, prompt, example)
        answers = tuple(answer for answer in example.completions if not isinstance(answer, str))
        try:
            return self._chat(example, example.prompt, answers)
        except TemplateRefusalError as refusal:
            raise RowError(REFUSED, f"it says: {refusal}") from refusal

    def prompt(self, prompt: Text, tools: str | None = None) -> tuple[str, str]:
        """A prompt as a model is given it, and its header: what asks for an answer.

        Raises:
            TemplateRefusalError: the template does not take this chat.
        """
        if isinstance(prompt, str):
            header = _DIALOGUE_HEADER.search(prompt)
            return prompt, header.group() if header else ""
        before, asked = (self.template.render(prompt, tools, ask=ask) for ask in (False, True))
        return asked, asked[len(shared_start(before, asked)) :]

    def lost_of_prompt(self, prompt: tuple[Message, ...], tools: str | None = None) -> list[Loss]:
        """What the template leaves out of a chat that is to be answered.

        Raises:
            TemplateRefusalError: the template does not take this chat.
        """
        text = self.template.render(prompt, tools, ask=True)
        return self._traces.losses(prompt, tools, [text] * len(prompt))

    def _chat(
        self, example: Example, prompt: tuple[Message, ...], answers: Sequence[tuple[Message, ...]]
    ) -> RenderedExample:
        before, asked = (self.template.render(prompt, example.tools, ask=ask) for ask in (False, True))
        written = [self.template.render((*prompt, *answer), example.tools) for answer in answers]
        full = [
            self._with_reasoning(prompt, answer, example.tools, asked, text)
            for answer, text in zip(answers, written, strict=True)
        ]
        remarks = {RESTORED: None} if full != written else {}
        border = self._border(prompt, answers, example.tools, asked, full)
        if border is None:
            self._require_traces(example, prompt, answers, full, 0)
            raise RowError(REWRITTEN, "the template writes another prompt once it is answered: give the data as text")
        for loss in self._require_traces(example, prompt, answers, full, border):
            remarks[f"The {self.template.name} leaves out {loss.what}"] = None
        if contradictory(full, example.labels):
            _refuse_equals(answers, example.labels)
        text = full[0][:border]
        header = text[len(shared_start(before, text)) :]
        completions = tuple(
            whole[border:] if ended else self._unended(prompt, answer, example.tools, whole, border)[border:]
            for whole, answer, ended in zip(full, answers, example.endings, strict=True)
        )
        return RenderedExample(example.id, text, completions, header, asked, example, tuple(remarks))

    def _border(
        self,
        prompt: tuple[Message, ...],
        answers: Sequence[tuple[Message, ...]],
        tools: str | None,
        asked: str,
        full: Sequence[str],
    ) -> int | None:
        """Where the completion begins in all full texts; None if they do not begin with the prompt.

        Mostly it is after what asks for an answer. A template may ask with more than it writes of an answered chat,
        such as the beginning of a thinking block, or in another way. Then the border is where it would write any other
        answer, so it never lies within a message.
        """
        if all(text.startswith(asked) for text in full):
            return len(asked)
        headers: list[str] = []
        for answer in answers:
            # Templates may write another thinking block, or none, where the answer is not the last.
            answered, thought = (
                self._until_answer((*prompt, Message(answer[0].role, content), *answer[1:]), tools)
                for content in (PROBE, f"<think>\n{PROBE}\n</think>\n\n{PROBE}")
            )
            headers += [answered, shared_start(asked, thought)]
        fitting = [header for header in headers if header and all(text.startswith(header) for text in full)]
        return max((len(header) for header in fitting if _ends_after_text(prompt, header)), default=None)

    def _until_answer(self, chat: tuple[Message, ...], tools: str | None) -> str:
        """What the template writes before the probe that stands for an answer; empty if it refuses it."""
        try:
            text = self.template.render(chat, tools)
        except TemplateRefusalError:
            return ""
        return text.partition(PROBE)[0] if PROBE in text else ""

    def _with_reasoning(
        self, prompt: tuple[Message, ...], answer: tuple[Message, ...], tools: str | None, asked: str, text: str
    ) -> str:
        """The text with the reasoning that the template cuts from an answer put back where the answer begins.

        Templates cut it so that earlier reasoning does not fill the context. But of the answer itself it is what the
        model writes first, so it is what should be scored.
        """
        said = answer[-1].content
        head, tag, tail = said.rpartition("</think>")
        if len(answer) > 1 or not tag or not tail.strip() or said.strip() in text:
            return text
        header = self._until_answer((*prompt, Message(answer[0].role, PROBE)), tools)
        if not text.startswith(header) or missing_of_text(said, text[len(header) :]) != REASONING:
            return text
        written = text[len(header) :].lstrip()
        if not written.startswith(tail.strip()):
            return text
        # Some data leaves out the mark that what asks for an answer ends with.
        marked = head.lstrip().startswith("<think>") or not asked.rstrip().endswith("<think>")
        opened = header if marked else asked
        white = tail[: len(tail) - len(tail.lstrip())]
        return f"{opened}{head.lstrip()}{tag}{white}{written}"

    def _unended(
        self, prompt: tuple[Message, ...], answer: tuple[Message, ...], tools: str | None, text: str, border: int
    ) -> str:
        """The text without what the template writes after an answer that was cut in the middle.

        What it writes before the answer's own text, such as a thinking block, nobody said: it cannot be learnt from.

        Raises:
            RowError: it cannot be told what that is, or something else than the answer's text stands before it.
        """
        last = answer[-1]
        if "tool_calls" in dict(last.further) or last.role != "assistant" or not last.content.strip():
            raise RowError(UNENDED, "an answer that was cut in the middle ends with a text of the assistant")
        probe = self.template.render((*prompt, *answer[:-1], Message(last.role, PROBE)), tools)
        after = probe.rpartition(PROBE)[2]
        said = text.removesuffix(after)
        before = text[:border]
        if len(answer) > 1:
            before = self.template.render((*prompt, *answer[:-1]), tools, ask=True)
        if (
            PROBE not in probe
            or not text.endswith(after)
            or not said.startswith(before)
            or said[len(before) :].strip() != last.content.strip()
        ):
            raise RowError(
                UNENDED,
                f"the {self.template.name} writes more than its text, or another one, between what asks for it and its "
                "end, which nobody said: drop it",
            )
        return said

    def _require_traces(
        self,
        example: Example,
        prompt: tuple[Message, ...],
        answers: Sequence[tuple[Message, ...]],
        full: Sequence[str],
        border: int,
    ) -> list[Loss]:
        """What is lost besides what should be trained on, which must not be.

        border: where the completions begin in the full texts.

        Raises:
            RowError: text, reasoning or a call of a completion left no trace.
        """
        harmless: list[Loss] = []
        for name, answer, text in zip(example.names, answers, full, strict=True):
            chat = (*prompt, *answer)
            texts = [text] * len(prompt) + [text[border:]] * len(answer)
            losses = self._traces.losses(chat, example.tools, texts)
            said = [number for number, message in enumerate(chat) if message.content.strip()]
            if said and all(_lost_whole(number, losses) for number in said):
                raise RowError(LOST, "the template left nothing of the messages' texts")
            # Reasoning before a later question is cut on purpose.
            last_question = max((i for i, message in enumerate(chat) if message.role == "user"), default=-1)
            for loss in losses:
                number = loss.message
                if number is not None and number > max(last_question, len(prompt) - 1) and is_of_an_answer(loss):
                    mend = "take it out of the data, or name a template that writes it with model.chat_template"
                    raise RowError(LOST, f"{name}: the {self.template.name} leaves out {loss.what}; {mend}")
            harmless += losses
        return harmless


def _refuse_equals(answers: Sequence[tuple[Message, ...]], labels: Sequence[int]) -> None:
    """Raises the reason why two completions are the same text."""
    trimmed = [[replace(m, content=m.content.strip()) for m in answer] for answer in answers]
    if contradictory(trimmed, labels):
        raise RowError("identical completions", "both sides are the same text but for white space around it")
    raise RowError(LOST, "chosen and rejected differ only in what the template leaves out")


def _lost_whole(number: int, losses: Sequence[Loss]) -> bool:
    return any(loss.message == number and loss.key == "content" and loss.what.startswith("the text") for loss in losses)


def _ends_after_text(prompt: tuple[Message, ...], header: str) -> bool:
    """Whether a text that begins as the chat does goes on to the end of the last message's own text."""
    return not missing_of_text(prompt[-1].content, header)
