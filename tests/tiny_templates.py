"""Chat templates in a few lines that behave as well-known ones do. For tests of what they do to a chat."""

from __future__ import annotations

TURN = "<{{ m.role }}>{{ m.content }}<eos>\n"
ASKS = "{% if add_generation_prompt %}<assistant>{% endif %}"
EVERY_TURN = "{% for m in messages %}" + TURN + "{% endfor %}"

PLAIN = EVERY_TURN + ASKS
# What the template adds where no system message is given.
DEFAULT_SYSTEM = "{% if messages[0].role != 'system' %}<system>Be kind.<eos>\n{% endif %}" + PLAIN
TRIMS = PLAIN.replace("{{ m.content }}", "{{ m.content | trim }}")
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + PLAIN
ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}{% endfor %}" + PLAIN
)
TWO_ROLES = "{% for m in messages %}{% if m.role in ['user', 'assistant'] %}" + TURN + "{% endif %}{% endfor %}" + ASKS
ENDS_WITH_EOS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}" + (
    "{% if add_generation_prompt %}<assistant>{% else %}<eos>{% endif %}"
)
NOTHING = "{% for m in messages %}<{{ m.role }}>{% endfor %}" + ASKS
PARTS_ONLY = (
    "{% for m in messages %}<{{ m.role }}>{% for part in m.content %}{{ part.text }}{% endfor %}<eos>\n{% endfor %}"
    + ASKS
)
# Begins every question anew, as Llama 2's.
BOS_EVERY_TURN = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}{% endif %}" + TURN + "{% endfor %}" + ASKS
)
TOOLS = (
    "{% if tools %}<system>{% for t in tools %}{{ t | tojson }}{% endfor %}<eos>\n{% endif %}{% for m in messages %}"
    "<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}</call>{% endfor %}"
    "<eos>\n{% endfor %}" + ASKS
)
# Joins the arguments to a string, so they must be text.
CALLS_AS_TEXT = TOOLS.replace("{{ c.function | tojson }}", "{{ c.function.name + ' ' + c.function.arguments }}")
REASONING_KEY = (
    "{% for m in messages %}<{{ m.role }}>{% if m.reasoning_content %}"
    "<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}<eos>\n{% endfor %}" + ASKS
)
_SPLIT = (
    "{% set c = m.content %}{% set r = '' %}{% if '</think>' in c %}{% set r = c.split('</think>')[0]"
    ".split('<think>')[-1].strip('\\n') %}{% set c = c.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
)
# Writes a thinking block in the last answer alone, empty if there is no thought, as Qwen3's.
THINKS = (
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}<{{ m.role }}>" + _SPLIT + "{% if m.role == 'assistant' and "
    "loop.index0 > ns.last %}<think>\n{{ r }}\n</think>\n\n{% endif %}{{ c }}<eos>\n{% endfor %}" + ASKS
)
OPENS_THOUGHT = THINKS.replace(ASKS, "{% if add_generation_prompt %}<assistant><think>\n{% endif %}")
CLOSES_THOUGHT = THINKS.replace(ASKS, "{% if add_generation_prompt %}<assistant><think>\n\n</think>\n\n{% endif %}")
# Cuts all reasoning from answers, as DeepSeek's; the second opens a thought to ask for an answer.
CUTS_THOUGHT = (
    "{% for m in messages %}<{{ m.role }}>{% set c = m.content %}{% if m.role == 'assistant' %}"
    "{% set c = c.split('</think>')[-1] %}{% endif %}{{ c }}<eos>\n{% endfor %}" + ASKS
)
CUTS_AND_OPENS = CUTS_THOUGHT.replace(ASKS, "{% if add_generation_prompt %}<assistant><think>\n{% endif %}")
