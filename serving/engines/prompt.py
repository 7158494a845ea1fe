"""Prompts of Qwen3-Reranker as token ids, put together as its model card does, save that no text of a user can become one of the template's markers."""

import os
import re
import unicodedata
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from serving.engines.template import BadPrompt

INSTRUCTION, QUERY, DOCUMENT = "\ue000instruction\ue001", "\ue000query\ue001", "\ue000document\ue001"  # stand for the fields in a rendered template
# Where a text is cut before it is tokenized, the last tokens may differ from those of the whole text.
MARGIN_TOKENS = 64
CHARACTERS_PER_TOKEN = 6  # English has four to five, other languages fewer: a first guess at how much of a long text is worth reading
GROWTH = 4  # how much more is read where that gave too few tokens
TEXTS_AT_ONCE = 16  # while it works, the library takes some hundred bytes a token
# Beginnings of documents that a tokenizer might join with the template's text before them.
BEGINNINGS = ("", "x", " x", "  x", "\n", " \n", "\t", "\u0301", "\u00a0", "中", "é", "1", "'s", "!", ":", ">", "<", "😀", "\u0000")

Ids: TypeAlias = "array[int]"  # a ninth of a list's memory


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The template's own text around its fields, and the stack's instruction: prefix, lead, instruction, to_query, query, to_document, document, suffix."""

    prefix: str
    lead: str
    instruction: str
    to_query: str
    to_document: str
    suffix: str


def read_layout(template: str) -> Layout:
    """Renders the template as vLLM does, with signs in place of its fields. BadPrompt where it is not made for a query and a document."""
    remedy = "serving/engines/qwen3_reranker.jinja was changed: restore it and build the image again."
    try:
        # The environment of transformers, through which vLLM renders.
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
        compiled = environment.from_string(template)
        messages = [{"role": "query", "content": QUERY}, {"role": "document", "content": DOCUMENT}]
        rendered = compiled.render(messages=messages, instruction=INSTRUCTION)
        without = compiled.render(messages=messages)
    except jinja2.TemplateError as error:
        raise BadPrompt(f"The score template cannot be rendered ({type(error).__name__}); {remedy}") from None
    found = re.fullmatch(f"(.*){INSTRUCTION}(.*){QUERY}(.*){DOCUMENT}(.*)", rendered, re.DOTALL)
    if found is None or rendered.count("\ue000") != 3:
        raise BadPrompt(f"The score template must have its instruction, its query and its document once each, in this order; {remedy}")
    head, to_query, to_document, suffix = found.groups()
    rest = f"{to_query}{QUERY}{to_document}{DOCUMENT}{suffix}"
    if not (without.startswith(head) and without.endswith(rest)):
        raise BadPrompt(f"The score template must not change with its instruction; {remedy}")
    if not re.search(r"\S $", to_document):
        raise BadPrompt(f"The score template must have one space before its document; {remedy}")
    # The model card tokenizes the line of the instruction together with query and document, what stands before by itself.
    line = head.rfind("\n") + 1
    return Layout(
        prefix=head[:line],
        lead=head[line:],
        instruction=without[len(head) : len(without) - len(rest)],
        to_query=to_query,
        to_document=to_document,
        suffix=suffix,
    )


class TokenPrompts:
    """The prompts of one call (engine.Prompts); `prompt` gives a list of token ids."""

    def __init__(self, *, query: int, before: list[int], documents: Sequence[Ids], after: list[int], room: int) -> None:
        """`documents` begin with the token of the space before them, which may hold a document's first letters; `room` is what fits of a document."""
        self.query = query
        self.shared = len(before) + 1
        self.tail = len(after)
        self.documents = [min(len(document) - 1, room + 1) for document in documents]
        self._before, self._after = before, after
        self._documents = [document[: room + 1] for document in documents]

    def prompt(self, index: int, keep: int) -> list[int]:
        return [*self._before, *self._documents[index][: 1 + keep], *self._after]


class PromptMaker:
    """Makes prompts of a template (serving/engines/qwen3_reranker.jinja, rendered for the stack) and a model's tokenizer. Safe to call from threads."""

    def __init__(self, template: str, tokenizer: Tokenizer, max_model_len: int) -> None:
        """BadPrompt where template and tokenizer do not fit together."""
        self.layout = layout = read_layout(template)
        self.max_model_len = max_model_len
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._before = tokenizer.encode(layout.prefix, add_special_tokens=False).ids
        self._after = tokenizer.encode(layout.suffix, add_special_tokens=False).ids
        # The same without added tokens: it knows no marker, so every text is plain text to it.
        self._plain = Tokenizer(tokenizer.model)
        self._plain.normalizer, self._plain.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
        self._refuse_markers({number: added.content for number, added in tokenizer.get_added_tokens_decoder().items()})
        self._refuse_joining()

    @classmethod
    def load(cls, template: str, model: Path, max_model_len: int) -> "PromptMaker":
        """Reads the model directory's tokenizer.json (Qwen3's takes 0.6 s). One thread tokenizes a call: the other cores are the engine's."""
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        file = model / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing narrower
            raise BadPrompt(f"{file} must be a tokenizer of the tokenizers library ({error}); choose a model that has one.") from None
        return cls(template, tokenizer, max_model_len)

    def prompts(self, instruction: str, query: str, documents: Sequence[str]) -> TokenPrompts:
        """The prompts of one call; an empty `instruction` means the stack's."""
        head = self._head(instruction or self.layout.instruction, query)
        body, alone = self._tokens([head, query])
        before = [*self._before, *body]
        # Qwen's split of a text into words always ends a word before a space, so what stands before it is tokenized once for all documents.
        tokens = self._tokens([" " + document for document in documents])
        room = max(0, self.max_model_len - len(before) - 1 - len(self._after))
        return TokenPrompts(query=len(alone), before=before, documents=tokens, after=self._after, room=room)

    def shortened(self, query: str, tokens: int) -> str:
        """At most `tokens` tokens of the query: all, or its beginning and its end with a line break between them; "" where not a letter of it has so few."""
        if len(self._tokens([query])[0]) <= tokens:
            return query
        least = max(tokens - 1, 1)  # the line break is one
        while least > 0:
            behind = least // 2
            before = self._cut(query, least - behind)
            text = f"{before}\n{self._cut(query, behind, end=True)}" if behind else before
            if len(self._encode([text])[0]) <= tokens:
                return text
            least -= 1 + least // 50  # another word may begin at the seam
        return ""

    def _cut(self, text: str, tokens: int, *, end: bool = False) -> str:
        """The first (`end`: the last) `tokens` tokens of a text, as text; no more of it is read than may be needed."""
        characters = CHARACTERS_PER_TOKEN * (tokens + MARGIN_TOKENS)
        while True:
            part = text[-characters:] if end else _beginning(text, characters)
            offsets = self._plain.encode(part, add_special_tokens=False).offsets
            if len(offsets) > tokens + MARGIN_TOKENS or len(part) == len(text):
                break
            characters *= GROWTH
        if len(offsets) <= tokens:
            return part
        return part[offsets[-tokens][0] :] if end else part[: offsets[tokens - 1][1]]

    def _head(self, instruction: str, query: str) -> str:
        return f"{self.layout.lead}{instruction}{self.layout.to_query}{query}{self.layout.to_document}".removesuffix(" ")

    def _encode(self, texts: Sequence[str]) -> list[Ids]:
        found: list[Ids] = []
        for place in range(0, len(texts), TEXTS_AT_ONCE):
            some = self._plain.encode_batch_fast(list(texts[place : place + TEXTS_AT_ONCE]), add_special_tokens=False)
            found += [array("I", encoded.ids) for encoded in some]
        return found

    def _tokens(self, texts: Sequence[str]) -> list[Ids]:
        """The tokens of each text; of one with more than the model takes, only the first max_model_len + 2 or more, found without reading it all."""
        enough = self.max_model_len + 2
        tokens = [array("I") for _ in texts]
        waiting, characters = list(range(len(texts))), CHARACTERS_PER_TOKEN * (enough + MARGIN_TOKENS)
        while waiting:
            read = [_beginning(texts[index], characters) for index in waiting]
            for index, beginning, ids in zip(waiting, read, self._encode(read), strict=True):
                tokens[index] = ids if len(beginning) == len(texts[index]) else ids[:-MARGIN_TOKENS]
            waiting = [
                index for index, beginning in zip(waiting, read, strict=True) if len(beginning) < len(texts[index]) and len(tokens[index]) < enough
            ]
            characters *= GROWTH
        return tokens

    def _refuse_markers(self, added: dict[int, str]) -> None:
        """BadPrompt where the plain tokenizer can make a marker of the template, or the template has one between its fields."""
        layout = self.layout
        for number, content in added.items():
            if any(content in text for text in (layout.lead, layout.to_query, layout.to_document)):
                raise BadPrompt(
                    f"The score template must have no marker between its fields, but {content} is one; restore the template and build the image again."
                )
            if content in layout.prefix + layout.suffix and number in self._encode([content])[0]:
                raise BadPrompt(f"The model's tokenizer reads {content} in any text as the template's marker; choose a Qwen3 reranker.")

    def _refuse_joining(self) -> None:
        head = self._head("i", "q")
        for document in BEGINNINGS:
            whole, before, behind = self._encode([f"{head} {document}", head, f" {document}"])
            if whole != before + behind or len(self._encode([" "])[0]) != 1:
                raise BadPrompt("The model's tokenizer must end a word before a space, as Qwen3's does; choose a Qwen3 reranker.")


def _beginning(text: str, characters: int) -> str:
    """At least `characters` of the text; a letter keeps the marks that are combined with it."""
    end = characters
    while end < len(text) and unicodedata.combining(text[end]):
        end += 1
    return text[:end]
