"""What the service is told: the limits and dials of one stack, as arguments of a command and across into vLLM's process as one variable."""

import json
from collections.abc import MutableMapping
from dataclasses import dataclass

from serving.dials import Rule, argv, between, dial, one_of, read
from serving.rank.unscored import WAYS

VARIABLE = "RERANKER_SERVICE"


@dataclass(frozen=True, kw_only=True)
class ServiceDials:
    """The service's own keys of Pulumi.yaml, in snake case; the stack's settings inherit them."""

    max_model_len: int = dial(
        "tokens of query, document and template",
        between(512, 40960, "tokens (the template alone takes about 100; the models were trained up to 40960)"),
    )
    instruction: str = dial(
        "the instruction in the score template",
        Rule(
            lambda value: 1 <= len(value) <= 2000 and "<|im_" not in value and not value.startswith("-"),
            "must be 1 to 2000 characters that do not start with '-', without the template's own markers (<|im_start|>, <|im_end|>)",
        ),
    )
    deadline_seconds: int = dial("a rerank is answered by then, with what there is", between(1, 3600, "seconds; RAGFlow hangs up after 30"))
    min_document_tokens: int = dial("what is left of a document that a deadline cuts, at least", between(16, 20480, "tokens"))
    unscored: str = dial("what a document is given that the deadline left without a score", one_of(*WAYS))
    max_query_tokens: int = dial("tokens of a query", between(16, 20480, "tokens"))
    max_documents: int = dial("documents of one call", between(1, 10_000, "documents"))
    max_body_mib: int = dial("size of a request's body", between(1, 256, "MiB"))
    cache_entries: int = dial("scores remembered", between(0, 1_000_000, "scores; 0 remembers none"))
    golden_check: bool = dial("whether a known model must rank its golden set to be healthy")
    page: bool = dial("whether GET / is a page that shows the service")


@dataclass(frozen=True, kw_only=True)
class ServiceOptions(ServiceDials):
    """The dials, and what each deployment adds. `model` is the model's directory, `tokens_per_pass` what the engine takes in one forward pass."""

    served_model_names: tuple[str, ...] = dial("names that callers may use, the first one answered with")
    api_key_file: str = dial("keys of which callers need one, a line each; without it none is asked for", default="")
    model: str = dial("directory of the model; without it the mock", default="")
    tokens_per_pass: int = dial("tokens of one forward pass; decided by the launcher", default=0)
    number_format: str = dial("number format of the model; decided by the launcher", default="")


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a server listens: in a container on all its addresses, published or not by Docker."""

    host: str = dial("address to listen on, empty for every one of both IP families", default="")
    port: int = dial("port to listen on", default=8000)


def hand_over(options: ServiceOptions, environment: MutableMapping[str, str]) -> None:
    """Puts the options where the service looks for them in vLLM's process, whose argv is vLLM's."""
    environment[VARIABLE] = json.dumps(argv(options))


def handed_over(environment: MutableMapping[str, str]) -> ServiceOptions:
    """What `hand_over` put there; KeyError where it did not."""
    return read(ServiceOptions, json.loads(environment[VARIABLE]), prog="serving")
