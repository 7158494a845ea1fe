"""`rerank fetch`: a model's files onto this machine, by the step that fills a stack's model volume."""

import argparse
import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rerank import house, models
from rerank.command.out import USAGE, Trouble, show_json
from serving.populate import run
from serving.populate.files import AGAIN, PopulateError

app = typer.Typer(add_completion=False)
DEFAULTS: dict[str, Any] = house.defaults()
SOURCES = ("hub", "modelscope")
WORDS = (
    (AGAIN, "run rerank fetch again, it goes on from here"),
    ("pulumi config set --secret modelToken", "export HF_TOKEN=…"),
    ("remove the volume if others filled it", "choose another directory with --to"),
    ("httpsProxy and caBundle", "HTTPS_PROXY and SSL_CERT_FILE"),
    (" on the Docker host (docker system df shows what takes it)", ""),
    ("modelMirrors", "--mirror"),
    ("modelscopeEndpoint", "--mirror"),
    ("modelToken", "HF_TOKEN"),
    ("modelRevision", "--revision"),
    ("model and --revision", "the repository and --revision"),
    ("check the name in model", "check the name"),
)


@app.command()
def fetch(
    repo: Annotated[str, typer.Argument(help="Repository of the model, OWNER/NAME")] = DEFAULTS["model"],
    revision: Annotated[str, typer.Option(help="Commit of the repository; the usual model has one", show_default=False)] = "",
    to: Annotated[Path | None, typer.Option(help="Directory to fill", show_default="one that serve and cold find by the model's name")] = None,
    source: Annotated[str, typer.Option(help=" or ".join(SOURCES))] = "hub",
    mirror: Annotated[
        list[str] | None, typer.Option(help="Address to download from; repeat it, they are tried in turn", show_default="as the stack's")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output")] = False,
) -> None:
    """Download a model, whole and checked file by file. Interrupted, it goes on where it stopped. HF_TOKEN is sent to the hubs themselves alone."""
    if source not in SOURCES:
        raise typer.BadParameter(f"{source!r} must be {' or '.join(SOURCES)}", param_hint="--source")
    if repo.count("/") != 1:
        raise typer.BadParameter(f"{repo!r} must be OWNER/NAME, such as {DEFAULTS['model']}", param_hint="REPO")
    if not revision and repo != DEFAULTS["model"]:
        raise Trouble(f"say --revision: the commit of {repo} that is wanted, which its page shows; a name that moves is no pin", USAGE)
    target = (to or models.place(repo)).expanduser().resolve()
    token = os.environ.get("HF_TOKEN", "").strip()
    options = argparse.Namespace(
        source=source,
        repo=repo,
        revision=revision or DEFAULTS["model_revision"],
        mirror=mirror or DEFAULTS["model_mirrors"],
        endpoint=(mirror or [DEFAULTS["modelscope_endpoint"]])[0],
        target=target,
        token_stdin=bool(token),
        token_host=DEFAULTS["model_token_hosts"],
    )
    try:
        target.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(sys.stderr):  # its progress; the answer alone is for standard output
            run.populate(options, io.BytesIO(f"{token}\n".encode()))
    except PopulateError as error:
        raise Trouble(_spoken(str(error))) from None
    except OSError as error:
        raise Trouble(f"{error.filename or target} cannot be written ({error.strerror}): choose another directory with --to") from None
    if as_json:
        show_json({"repo": repo, "revision": options.revision, "directory": str(target), "name": models.slug(repo)})


def _spoken(sentence: str) -> str:
    """The step's sentence with this command's words for a stack's."""
    for theirs, ours in WORDS:
        sentence = sentence.replace(theirs, ours)
    return sentence
