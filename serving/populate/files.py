"""The files of a model: those that are wanted, as a hub states them and as they lie on the disk, and the manifest that vouches for them."""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from serving.model import MANIFEST

INCOMPLETE = ".incomplete"
WANTED = (".safetensors", ".json", ".txt", ".jinja", ".model", ".tiktoken")
# Folders with the same weights in other formats.
UNWANTED_FOLDERS = ("onnx", "openvino", "gguf", "original", "coreml")
CHUNK = 1 << 20
MIB = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
AGAIN = "run pulumi up again, it goes on from here"


class PopulateError(Exception):
    """No other mirror can help: one sentence with the remedy."""


# What a mirror's answer means for the model, where it means more than that the mirror failed.
GATED, TOKEN, WITHHELD, REVISION, ABSENT, BLOCKED = "gated", "token", "withheld", "revision", "absent", "blocked"


class MirrorError(Exception):
    """This mirror failed; another may do. `kind` is one of the words above, or '' where the mirror is just broken."""

    def __init__(self, text: str, kind: str = "") -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub states it: size in bytes; `sha256`, or `git_blob` (SHA-1 of git's blob) where it states only that; '' is unstated, or no checksum."""

    path: str
    size: int
    url: str
    sha256: str = ""
    git_blob: str = ""

    def __post_init__(self) -> None:
        # Others chose them, and a file on its way is named by its checksum.
        for name, digits in (("sha256", 64), ("git_blob", 40)):
            value = str(getattr(self, name)).lower()
            object.__setattr__(self, name, value if re.fullmatch(f"[0-9a-f]{{{digits}}}", value) else "")
        if self.size < 0:
            raise ValueError(f"{self.path} has a size below 0")

    @property
    def checksum(self) -> str:
        return self.sha256 or self.git_blob


@dataclass(frozen=True)
class LocalFile:
    """A file as it lies on the disk, for the manifest; `checked` against a checksum that the source states, or by its size alone."""

    path: str
    size: int
    sha256: str
    checked: bool = True


def wanted(path: str) -> bool:
    """Weights as safetensors, configuration, tokenizer, templates; no copy of the weights in another format."""
    name = PurePosixPath(path)
    return name.suffix in WANTED and not name.name.startswith(".") and name.parts[0] not in UNWANTED_FOLDERS and path != MANIFEST


def safe(path: str) -> bool:
    """Whether a path that others chose stays inside the directory that it is joined to."""
    return bool(path) and "\\" not in path and "\0" not in path and not path.startswith("/") and ".." not in PurePosixPath(path).parts


def checksums(path: Path) -> tuple[str, str]:
    """SHA-256 of the file, and SHA-1 of the git blob that it would be; both in hex."""
    sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
            blob.update(chunk)
    return sha256.hexdigest(), blob.hexdigest()


def size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def settle(source: Path, destination: Path) -> None:
    """Move a whole file to its place, readable by all, and on the disk before anyone relies on it."""
    with source.open("rb") as file:
        os.fsync(file.fileno())
    source.chmod(0o644)
    destination.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, destination)


def no_space(target: Path, what: str) -> str:
    return f"the disk under {target} is full, {what}: free space on the Docker host (docker system df shows what takes it), then {AGAIN}"


def read_manifest(target: Path) -> dict[str, Any]:
    """The manifest, or {} where there is none or it is broken."""
    try:
        manifest = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
        return manifest if all(isinstance(entry["path"], str) and isinstance(entry["size"], int) for entry in manifest["files"]) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def holds(target: Path, manifest: Mapping[str, Any], repo: str, revision: str) -> bool:
    """Whether the manifest is of this revision and every file has its size."""
    return (
        (manifest.get("repo"), manifest.get("revision")) == (repo, revision)
        and bool(manifest["files"])
        and all((target / entry["path"]).is_file() and (target / entry["path"]).stat().st_size == entry["size"] for entry in manifest["files"])
    )


def write_manifest(target: Path, *, repo: str, revision: str, source: str, files: Iterable[LocalFile]) -> None:
    """Last of all, and atomically: where it lies, the model is whole."""
    listed = [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in sorted(files, key=lambda file: file.path)]
    new = target / INCOMPLETE / MANIFEST
    new.write_text(json.dumps({"repo": repo, "revision": revision, "source": source, "files": listed}, indent=2) + "\n", encoding="utf-8")
    settle(new, target / MANIFEST)
    shutil.rmtree(target / INCOMPLETE)
