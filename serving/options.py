"""What the guard is told: the limits and dials of one stack, as arguments of a sub-command and across into vLLM's process as one variable."""

import argparse
import dataclasses
import json
from dataclasses import dataclass

VARIABLE = "RERANKER_GUARD"


@dataclass(frozen=True, kw_only=True)
class GuardOptions:
    """The guard's dials. `model` is the model's directory ("" for the mock), `tokens_per_pass` what the engine takes in one forward pass."""

    model: str
    served_model_names: tuple[str, ...]
    instruction: str
    max_model_len: int
    tokens_per_pass: int
    api_key_file: str
    deadline_seconds: float
    min_document_tokens: int
    max_query_tokens: int
    max_documents: int
    max_body_bytes: int
    cache_entries: int
    golden: bool

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str) -> "GuardOptions":
        """ValueError or TypeError where the text was not made by to_json."""
        values = json.loads(text)
        return cls(**{**values, "served_model_names": tuple(values["served_model_names"])})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The guard's own arguments, the same for every backend; defaults live in Pulumi.yaml, so all of them are required."""
    parser.add_argument("--served-model-name", action="append", required=True)
    parser.add_argument("--instruction", required=True)
    parser.add_argument("--max-model-len", type=int, required=True, metavar="TOKENS")
    parser.add_argument("--deadline-seconds", type=int, required=True, metavar="SECONDS", help="a rerank is answered by then, with what there is")
    parser.add_argument(
        "--min-document-tokens", type=int, required=True, metavar="TOKENS", help="what is left of a document that a deadline cuts, at least"
    )
    parser.add_argument("--max-query-tokens", type=int, required=True, metavar="TOKENS")
    parser.add_argument("--max-documents", type=int, required=True, metavar="COUNT", help="documents of one call")
    parser.add_argument("--max-body-mib", type=int, required=True, metavar="MIB", help="a request's body")
    parser.add_argument("--cache-entries", type=int, required=True, metavar="COUNT", help="scores remembered; 0: none")
    parser.add_argument("--golden", choices=("on", "off"), required=True, help="whether a known model must rank its golden set to be healthy")
    parser.add_argument("--api-key-file", default="")


def from_arguments(given: argparse.Namespace, *, model: str, tokens_per_pass: int) -> GuardOptions:
    return GuardOptions(
        model=model,
        served_model_names=tuple(given.served_model_name),
        instruction=given.instruction,
        max_model_len=given.max_model_len,
        tokens_per_pass=tokens_per_pass,
        api_key_file=str(given.api_key_file),
        deadline_seconds=float(given.deadline_seconds),
        min_document_tokens=given.min_document_tokens,
        max_query_tokens=given.max_query_tokens,
        max_documents=given.max_documents,
        max_body_bytes=given.max_body_mib << 20,
        cache_entries=given.cache_entries,
        golden=given.golden == "on",
    )
