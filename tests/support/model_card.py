"""Qwen3-Reranker's prompt as the code in its model card puts it together: the tests' own copy, by which serving/'s template is judged. Imports nothing."""

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
BODY = "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def prompt(query: str, document: str, instruction: str = INSTRUCTION) -> str:
    """The finished prompt."""
    return PREFIX + BODY.format(instruction=instruction, query=query, document=document) + SUFFIX
