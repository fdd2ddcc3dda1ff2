"""The prompt templates of an architecture in Jinja, for transformers."""

from __future__ import annotations

import re

from cogvlm2_lite.architectures.architecture import Template

# How a conversation becomes turns: instructions and consecutive messages join the question that
# follows them, as in the server. Answers are trimmed: decoded ones begin with a space.
_FRAME = """\
{%- set ns = namespace(question=none, answer=none, picture=false) -%}
{%- for message in messages -%}
  {%- if message.content is not string -%}
    {%- for part in message.content or [] -%}
      {%- if part.type == 'image' -%}{%- set ns.picture = true -%}{%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endfor -%}
{{- BOS -}}
{%- if ns.picture -%}{{ IMAGE }}{%- endif -%}
{%- for message in messages -%}
  {%- if message.content is string -%}
    {%- set text = message.content -%}
  {%- else -%}
    {%- set parts = (message.content or []) | selectattr('type', 'equalto', 'text') -%}
    {%- set glue = '' if message.role == 'assistant' else '\\n' -%}
    {%- set text = parts | map(attribute='text') | join(glue) -%}
  {%- endif -%}
  {%- if message.role == 'assistant' -%}
    {%- set ns.answer = text if ns.answer is none else ns.answer ~ '\\n' ~ text -%}
  {%- else -%}
    {%- if ns.answer is not none -%}
      {{- PAST -}}
      {%- set ns.question = none -%}
      {%- set ns.answer = none -%}
    {%- endif -%}
    {%- set ns.question = text if ns.question is none else ns.question ~ '\\n' ~ text -%}
  {%- endif -%}
{%- endfor -%}
{%- if ns.answer is not none -%}
  {{- LAST -}}
{%- else -%}
  {{- QUESTION -}}
{%- endif -%}
"""

_VALUES = {"question": "(ns.question or '')", "answer": "(ns.answer | trim)"}


def chat_template(template: Template, bos_token: str, image_token: str) -> str:
    """Return a prompt template in Jinja.

    The text begins with `bos_token`, and then `image_token` if a message has a picture, because the
    picture is the first thing that the model reads. The last question ends where its answer begins,
    also without `add_generation_prompt`. A template without past turns leaves them out.
    """
    expressions = {
        "BOS": _literal(bos_token),
        "IMAGE": _literal(image_token),
        "PAST": _expression(template.past),
        "LAST": _expression(template.past or template.question),
        "QUESTION": _expression(template.question),
    }
    return re.sub("BOS|IMAGE|PAST|LAST|QUESTION", lambda word: expressions[word[0]], _FRAME)


def _expression(text: str) -> str:
    """Return a text with the places {question} and {answer} as an expression in Jinja."""
    pieces = re.split(r"\{(question|answer)\}", text)
    terms = [_VALUES[piece] if i % 2 else _literal(piece) for i, piece in enumerate(pieces)]
    return " ~ ".join(terms)


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
