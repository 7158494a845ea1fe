"""Options for tests: whole sets, of which a test writes out only what it is about."""

import dataclasses
from typing import Any

from serving.launch.options import LaunchOptions
from serving.options import ServiceOptions

SERVICE = ServiceOptions(
    model="",
    served_model_names=("some-reranker", "/models/some-reranker"),
    instruction="the stack's",
    max_model_len=4096,
    tokens_per_pass=2048,
    api_key_file="",
    deadline_seconds=25,
    min_document_tokens=96,
    unscored="typical",
    max_query_tokens=200,
    max_documents=200,
    max_body_mib=1,
    cache_entries=10_000,
    golden_check=True,
    page=True,
)
LAUNCH = LaunchOptions(
    **vars(SERVICE) | {"model": "/models/some-reranker", "tokens_per_pass": 0},
    device="cpu",
    dtype="auto",
    kv_cache_gib=1,
    max_num_batched_tokens=0,
    max_num_seqs=0,
    threads=0,
    block_size=0,
    prefix_caching=True,
    preload=True,
    enforce_eager=True,
)


def service_options(**changes: Any) -> ServiceOptions:
    """Options of a service without a model."""
    return dataclasses.replace(SERVICE, **changes)


def launch_options(**changes: Any) -> LaunchOptions:
    """Options of a launch on a CPU, everything left to the launcher."""
    return dataclasses.replace(LAUNCH, **changes)
