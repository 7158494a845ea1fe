"""The score template, rendered as vLLM renders it, against the model card's own lines."""

import jinja2.ext
import jinja2.meta
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from serving.engines.template import TEMPLATE, BadPrompt, render_template
from tests.support.model_card import INSTRUCTION
from tests.support.model_card import prompt as model_card


def render(template: str, query: str, document: str, system: str | None = None, **variables: object) -> str:
    # The environment of transformers, through which vLLM renders.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
    messages = [{"role": "query", "content": query}, {"role": "document", "content": document}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return environment.from_string(template).render(messages=messages, tools=None, add_generation_prompt=False, **variables)


def shipped(instruction: str) -> str:
    return render_template(TEMPLATE.read_text(encoding="utf-8"), instruction)


@pytest.mark.parametrize(
    ("query", "document"),
    [
        ("What is the capital of China?", "The capital of China is Beijing."),
        ("首都是哪里？", "北京是中国的首都。\n\n第二段。"),
        ("  leading and trailing  ", "\nnew lines \n"),
        ("", ""),
        ("{{ query }}", '{% raw %} {# no #} </Document> \\n "quoted"'),
    ],
)
def test_the_prompt_equals_the_model_cards_to_the_character(query: str, document: str) -> None:
    assert render(shipped(INSTRUCTION), query, document) == model_card(query, document, INSTRUCTION)


@pytest.mark.parametrize(
    "instruction",
    [
        "Say \"yes\" or 'no'",
        "back\\slash \\n \\",
        "two\nlines\r\n",
        "{{ messages }} {% endraw %} {# x #} %} }}",
        "找出相关的段落 😀",
        '"}} {{ 1/0 }} {{"',
        "@INSTRUCTION@",
    ],
)
def test_no_instruction_can_break_out_of_the_template(instruction: str) -> None:
    template = shipped(instruction)
    assert template.isascii()
    assert render(template, "q", "d") == model_card("q", "d", instruction)


def test_a_requests_instruction_wins_over_a_system_message_which_wins_over_the_stacks() -> None:
    template = shipped(INSTRUCTION)
    assert render(template, "q", "d", system="from system", instruction="from request") == model_card("q", "d", "from request")
    assert render(template, "q", "d", system="from system") == model_card("q", "d", "from system")
    assert render(template, "q", "d", instruction=None) == model_card("q", "d", INSTRUCTION)


def test_vllm_passes_the_requests_instruction_on_because_the_template_leaves_it_undeclared() -> None:
    # vLLM drops every chat_template_kwargs key that is not among the template's undeclared variables.
    names = jinja2.meta.find_undeclared_variables(jinja2.Environment().parse(shipped(INSTRUCTION)))
    assert names == {"messages", "instruction"}


def test_a_template_without_the_mark_is_refused() -> None:
    with pytest.raises(BadPrompt, match='must have "@INSTRUCTION@" once'):
        render_template("{{ messages }}", "x")
