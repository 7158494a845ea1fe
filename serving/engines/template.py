"""The score template, and the stack's instruction in it. Standard library only: the launcher writes it before vLLM is there."""

from pathlib import Path

TEMPLATE = Path(__file__).with_name("qwen3_reranker.jinja")
INSTRUCTION_MARK = '"@INSTRUCTION@"'


class BadPrompt(Exception):
    """A template or a tokenizer that cannot give the model card's prompts; its text is one sentence with the remedy."""


def render_template(template: str, instruction: str) -> str:
    """The score template with `instruction` as its default, as a Jinja string literal in ASCII: no instruction can end the literal."""
    literal = instruction.encode("unicode_escape").decode("ascii").replace('"', '\\"')
    if template.count(INSTRUCTION_MARK) != 1:
        raise BadPrompt(f"The score template must have {INSTRUCTION_MARK} once; {TEMPLATE} in the image was changed: build the image again.")
    return template.replace(INSTRUCTION_MARK, f'"{literal}"')
