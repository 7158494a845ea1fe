"""Whether a directory holds a whole model that this user can read."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from serving.model import CONVERTED, ORIGINAL, weight_files
from serving.populate.files import UNWANTED_FOLDERS, PopulateError, wanted

INDEX = "model.safetensors.index.json"


POINTER = b"version https://git-lfs.github.com/spec/"


def missing(directory: Path) -> Iterator[str]:
    """What a model directory lacks to be served, each as the start of a sentence; nothing where it is whole."""
    if dangling := [path for path in sorted(directory.iterdir()) if path.is_symlink() and not path.exists() and wanted(path.name)]:
        yield (
            f"{dangling[0].name} is a link to {os.readlink(dangling[0])}, which cannot be seen from here (as in a snapshot of Hugging Face's cache: "
            "copy it with its files, cp -rL <snapshot> <directory>)"
        )
        return
    if pointers := [path.name for path in sorted(directory.iterdir()) if wanted(path.name) and is_pointer(path)]:
        yield f"{', '.join(pointers)}: only the pointer of Git LFS is there (run git lfs install and git lfs pull in the clone)"
        return
    if not (directory / "config.json").is_file():
        yield (
            "config.json is missing"
            if not (directory / "snapshots").is_dir()
            else ("it is a folder of Hugging Face's cache (copy one of its snapshots with its files, cp -rL snapshots/<commit> <directory>)")
        )
    tokenizers = (["tokenizer.json"], ["vocab.json", "merges.txt"], ["tokenizer.model"])
    if not any(all((directory / name).is_file() for name in names) for names in tokenizers):
        yield "tokenizer.json is missing"
    for path in sorted(directory.glob("*.json")):
        if wanted(path.name) and path.name != INDEX and path.is_file() and (fault := fault_of_json(path)):
            yield f"{path.name} {fault}"
    yield from wrong_kind(directory / "config.json")
    index = directory / INDEX
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            yield f"{index.name} {fault_of_json(index) or 'is not an index of shards'}"
            return
    else:
        shards = [path.name for path in weight_files(directory)] or ["model.safetensors"]
        numbered = re.fullmatch(r"model-\d+-of-(\d+)\.safetensors", shards[0])
        if numbered and len(shards) != int(numbered[1]):
            yield f"{INDEX} is missing, and {len(shards)} of {int(numbered[1])} shards are there"
    for shard in shards:
        path = directory / str(shard)
        if not path.is_file():
            yield f"{shard} is missing"
        elif path.stat().st_size != safetensors_size(path):
            yield f"{shard} is {'empty' if not path.stat().st_size else 'cut off or no safetensors file'}"


def is_pointer(path: Path) -> bool:
    """Whether Git LFS left its pointer in place of the file."""
    if not path.is_file() or path.stat().st_size > 1024:
        return False
    with path.open("rb") as file:
        return file.read(len(POINTER)) == POINTER


def fault_of_json(path: Path) -> str:
    """Why a file is no JSON; '' where it is."""
    if not path.stat().st_size:
        return "is empty"
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return "is cut off or no JSON"
    return ""


def wrong_kind(path: Path) -> Iterator[str]:
    """What a config.json says that is no Qwen3-Reranker; nothing where it does not say."""
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return  # told as such
    if not isinstance(config, dict):
        yield f"{path.name} is no object"
        return
    given = config.get("architectures")
    if isinstance(given, list) and given and given[0] not in (ORIGINAL, CONVERTED):
        yield f"it is a {str(given[0])[:80]} and not a Qwen3-Reranker ({ORIGINAL} or {CONVERTED}): choose another model"


def safetensors_size(path: Path) -> int:
    """Size in bytes that the header of a safetensors file promises; -1 where it has none."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= path.stat().st_size:
            return -1
        try:
            header = json.loads(file.read(length))
            return 8 + length + max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            return -1


def unreadable(directory: Path) -> Iterator[Path]:
    """What this user cannot read: the directory, folders and files of it that a model needs."""
    if not os.access(directory, os.R_OK | os.X_OK):
        yield directory
        return
    for path in sorted(directory.rglob("*")):
        parts = path.relative_to(directory).parts
        if any(part.startswith(".") for part in parts) or parts[0] in UNWANTED_FOLDERS or (path.is_symlink() and not path.exists()):
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
