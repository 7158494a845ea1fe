"""Whether a directory holds a whole model that this user can read."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from serving.populate.files import PopulateError, wanted


def missing(directory: Path) -> Iterator[str]:
    """What a model directory lacks to be served, each as the start of a sentence; nothing where it is whole."""
    if not (directory / "config.json").is_file():
        yield "config.json is missing"
    tokenizers = (["tokenizer.json"], ["vocab.json", "merges.txt"], ["tokenizer.model"])
    if not any(all((directory / name).is_file() for name in names) for names in tokenizers):
        yield "tokenizer.json is missing"
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            yield f"{index.name} is not an index of shards"
            return
    else:
        shards = sorted(path.name for path in directory.glob("*.safetensors")) or ["model.safetensors"]
    for shard in shards:
        path = directory / str(shard)
        if not path.is_file():
            yield f"{shard} is missing"
        elif path.stat().st_size != safetensors_size(path):
            yield f"{shard} is cut off or no safetensors file"


def safetensors_size(path: Path) -> int:
    """Size in bytes that the header of a safetensors file promises; -1 where it has none."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= path.stat().st_size:
            return -1
        try:
            header = json.loads(file.read(length))
            return 8 + length + max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return -1


def unreadable(directory: Path) -> Iterator[Path]:
    """What this user cannot read: the directory, folders and files of it that a model needs."""
    if not os.access(directory, os.R_OK | os.X_OK):
        yield directory
        return
    for path in sorted(directory.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(directory).parts):
            continue
        if path.is_dir():
            if not os.access(path, os.R_OK | os.X_OK):
                yield path
        elif wanted(path.relative_to(directory).as_posix()) and not os.access(path, os.R_OK):
            yield path


def require_readable(directory: Path) -> None:
    """PopulateError unless the directory holds a whole model that this user can read. Writes nothing."""
    if not directory.is_dir():
        raise PopulateError(f"{directory} is no directory: set modelPath to the directory on the Docker host that holds the model")
    for path in unreadable(directory):
        mode = oct(path.stat().st_mode & 0o7777)[2:].zfill(4)
        raise PopulateError(
            f"{path} (mode {mode}) cannot be read by the container's user {os.getuid()}: "
            "run chmod -R a+rX on the directory of modelPath on the Docker host"
        )
    require_whole(directory, "put the whole repository into the directory of modelPath")


def require_whole(directory: Path, remedy: str) -> None:
    if lacks := list(missing(directory)):
        raise PopulateError(f"the model in {directory} is not whole, {', '.join(lacks)}: {remedy}")
