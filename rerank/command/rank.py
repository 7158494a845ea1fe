"""`rerank rank`: one call to a service, from the shell."""

import os
from typing import Annotated

import typer

from rerank.command.out import UNREACHED, USAGE, Trouble, given, say, show_items, show_json
from rerank.errors import InvalidInput, RerankError, TimedOut, Unreachable
from rerank.helpers import default_client
from rerank.results import Item

app = typer.Typer(add_completion=False)


@app.command()
def rank(
    query: Annotated[str, typer.Argument(help="The query")],
    documents: Annotated[list[str], typer.Argument(metavar="DOC…|-", help="The documents; - reads them from standard input, one a line")],
    url: Annotated[str, typer.Option(envvar="RERANK_URL", help="The service, e.g. http://127.0.0.1:8123")] = "",
    model: Annotated[str, typer.Option(envvar="RERANK_MODEL", help="The name to ask for", show_default="what is served")] = "",
    api_key_file: Annotated[
        str, typer.Option(envvar="RERANK_API_KEY_FILE", help="File with the key in its first line; or set RERANK_API_KEY", show_default="no key")
    ] = "",
    top_n: Annotated[int, typer.Option(help="How many to show; 0 for all", min=0)] = 0,
    deadline: Annotated[float, typer.Option(help="Seconds for the call; 0 for the service's own deadline", min=0)] = 0.0,
    in_order: Annotated[bool, typer.Option("--in-order", help="Every document's score in the order given, all of them or an error")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The service's own JSON on standard output")] = False,
) -> None:
    """Ask a service once: the documents by their relevance to the query, best first."""
    texts = given(documents)
    if in_order and top_n:
        raise typer.BadParameter("--in-order shows every score, so it goes without --top-n", param_hint="--top-n")
    # By the environment, as scripts give it: a key is never an argument.
    os.environ.update({name: value for name, value in (("RERANK_URL", url), ("RERANK_MODEL", model), ("RERANK_API_KEY_FILE", api_key_file)) if value})
    try:
        client = default_client()
        if in_order:
            scored = client.score(query, texts, deadline=deadline or None)
            items, answer = [Item(*item) for item in zip(range(len(texts)), scored.scores, texts, strict=True)], scored.raw
        else:
            ranked = client.rerank(query, texts, top_n or None, deadline=deadline or None)
            items, answer = list(ranked.items), ranked.raw
            for places, what in ((ranked.cut, "cut to fit the deadline or the model"), (ranked.unscored, "without a score of the model")):
                if places:
                    say(f"{len(places)} of {len(texts)} documents {what}")
            if ranked.unhealthy:
                say(f"warning: the service is not healthy, and its scores are not to be trusted: {ranked.unhealthy}")
    except RerankError as error:
        code = USAGE if isinstance(error, InvalidInput) else UNREACHED if isinstance(error, (Unreachable, TimedOut)) else 1
        raise Trouble(str(error), code) from None
    if as_json:
        show_json(answer)
    else:
        show_items(items)
