"""Models on this machine: where `rerank fetch` puts them, whether one is whole, and what to do where it is not. Standard library and serving only."""

import os
from dataclasses import dataclass
from pathlib import Path

from rerank import house

house.enter("serving")

from serving.populate.files import read_manifest  # noqa: E402
from serving.populate.whole import missing, unreadable  # noqa: E402


class NoModel(Exception):
    """A model that cannot be used; one sentence with the remedy."""


@dataclass(frozen=True)
class Local:
    """A whole model on this disk. `verified`: its manifest vouches for it, which the population step writes."""

    directory: Path
    name: str
    verified: bool


def slug(repo: str) -> str:
    """'qwen3-reranker-0.6b' for 'Qwen/Qwen3-Reranker-0.6B': directory and served name, as a stack's."""
    return repo.rstrip("/").rsplit("/", 1)[-1].lower()


def place(repo: str) -> Path:
    """Where `rerank fetch` puts a repository: XDG_DATA_HOME/ragflow-reranker/models/<slug>."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share", "ragflow-reranker", "models", slug(repo))


def usual() -> str:
    """The repository of Pulumi.yaml."""
    return str(house.defaults()["model"])


def find(given: str) -> Local:
    """The model in the directory `given`, or a fetched one by its repository or slug; "" is the usual one. NoModel where it is not there or not whole."""
    repo = given or usual()
    directory = Path(given).expanduser() if given and (os.sep in given or Path(given).is_dir()) else place(repo)
    if given and not directory.is_dir() and place(repo).is_dir():
        directory = place(repo)
    fetch = (
        "rerank fetch"
        if slug(repo) == slug(usual()) and directory == place(usual())
        else f"rerank fetch OWNER/NAME --revision COMMIT --to {directory}"
    )
    if not directory.is_dir():
        raise NoModel(f"There is no model in {directory}: download it with '{fetch}', or give --model the directory that has it.")
    for path in unreadable(directory):
        raise NoModel(f"{path} cannot be read by user {os.getuid()}: make it readable, chmod -R u+rX {directory}")
    if lacks := list(missing(directory)):
        raise NoModel(f"The model in {directory} is not whole, {', '.join(lacks)}: '{fetch}' completes it and keeps what is right.")
    manifest = read_manifest(directory)
    return Local(directory=directory.resolve(), name=slug(manifest.get("repo") or directory.resolve().name), verified=bool(manifest))
