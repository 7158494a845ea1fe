"""`rerank cold`: scores without a server."""

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from rerank.command.out import Trouble, given, say, show_items, show_json

app = typer.Typer(add_completion=False)


@app.command()
def cold(
    query: Annotated[str, typer.Argument(help="The query")],
    documents: Annotated[list[str], typer.Argument(metavar="DOC…|-", help="The documents; - reads them from standard input, one a line")],
    model: Annotated[str, typer.Option(help="Directory of the model, or the name of one that rerank fetch has", show_default="the usual one")] = "",
    engine: Annotated[str, typer.Option(help="vllm or transformers", show_default="the first that is installed")] = "",
    device: Annotated[str, typer.Option(help="cpu or gpu", show_default="what torch finds")] = "",
    dtype: Annotated[str, typer.Option(help="Number format", show_default="as the service chooses it")] = "auto",
    instruction: Annotated[str, typer.Option(help="The instruction in the prompt", show_default="the model card's")] = "",
    max_model_len: Annotated[int, typer.Option(help="Tokens of query, document and template", show_default="the service's")] = 0,
    top_n: Annotated[int, typer.Option(help="How many to show; 0 for all", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output")] = False,
) -> None:
    """Score documents in this process, without a server: the prompts and scores of the service. The model is loaded for this one call."""
    from rerank.cold import ENGINES, ColdError, ColdReranker
    from rerank.models import NoModel
    from rerank.serve.start import spoken
    from serving.engines.template import BadPrompt
    from serving.launch.flags import Refused
    from serving.model import BadModel

    for key, value, known in (("engine", engine, ENGINES), ("device", device, ("cpu", "gpu"))):
        if value and value not in known:
            raise typer.BadParameter(f"{value!r} must be {' or '.join(known)}", param_hint=f"--{key}")
    texts = given(documents)
    dials: dict[str, Any] = {"dtype": dtype, "instruction": instruction, "max_model_len": max_model_len}
    try:
        with _only_ours():
            begun = time.monotonic()
            reranker = ColdReranker(model, engine=engine, device=device, **{name: value for name, value in dials.items() if value})
            loaded = time.monotonic()
            items = reranker.rerank(query, texts, top_n or None)
            ended = time.monotonic()
    except (ColdError, NoModel, Refused, BadModel, BadPrompt) as reason:
        raise Trouble(spoken(str(reason))) from None
    say(
        f"{reranker.name} in {reranker.dtype} by {reranker.engine}: loaded in {loaded - begun:.1f} s, {len(texts)} documents in {ended - loaded:.1f} s"
    )
    if as_json:
        show_json(
            {"model": reranker.name, "engine": reranker.engine, "dtype": reranker.dtype, "results": [dataclasses.asdict(item) for item in items]}
        )
    else:
        show_items(items)


@contextlib.contextmanager
def _only_ours() -> Iterator[None]:
    """Whatever the engines print, from C++ too, goes to standard error: standard output has the result alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
        sys.stdout.flush()
    finally:
        os.dup2(kept, 1)
        os.close(kept)
