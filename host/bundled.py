"""The image that a bundle (docs/bundle.md) brought to a Docker host: what it is of, and the tag by which a stack knows it. Standard library only: `make` uses it too."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# Environment of pulumi in a run with a bundle. No setting and no state: what a stack is does not depend on how its parts came.
PACK = "RERANKER_BUNDLE_PACK"  # not empty: the program makes what goes into a bundle, and deploys nothing
IMAGE = "RERANKER_BUNDLE_IMAGE"  # tag under which this run puts the bundle's image on the host
MODEL = "RERANKER_BUNDLE_MODEL"  # "offset size path" of the model's tar, in bytes, on the machine that runs pulumi
# The keys that say what an image is, by backend and strategy; mirrors, proxies and indexes only say where it comes from.
WHEEL = ("imageStrategy", "baseImage", "vllmPackage", "vllmVersion", "torchRequirement")
KEYS = {
    "wheel": WHEEL,
    "source": ("imageStrategy", "sourceContext", "vllmVersion"),
    "registry": ("imageStrategy", "registryImage"),
    "archive": ("imageStrategy", "archiveImage"),
    "gpu": ("gpuImage",),
    "mock": ("baseImage",),
}


def pins(values: Mapping[str, Any], root: Path) -> dict[str, str]:
    """What the image of a stack is of: those keys of `values` (names as in Pulumi.yaml), and the files under `root` that it is made with, by SHA-256."""
    kind = values["imageStrategy"] if values["backend"] == "cpu" else values["backend"]
    found = {key: _text(values[key]) for key in ("backend", *KEYS[kind])}
    files = ["images/Dockerfile.serving"]
    if kind == "wheel":
        torch = values["torchRequirement"].replace("==", "-")
        # install.py takes the one list or the other.
        files += [
            "images/Dockerfile.cpu",
            "images/install.py",
            f"images/constraints-{values['vllmVersion']}.txt",
            f"images/{torch}.txt",
            f"images/{torch}+cpu.txt",
        ]
    if kind == "mock":
        files += ["images/mock.lock"]
    for name in files:
        if (root / name).is_file():
            found[name] = hashlib.sha256((root / name).read_bytes()).hexdigest()
    return found


def tag(container: str, of: Mapping[str, str], content: str) -> str:
    """Tag of an image for the stack of `container`: no other stack of the host takes it. `of`: its pins; `content`: SHA-256 of the tar that it came in."""
    return f"{_prefix(container, of)}{content[:12]}"


def fitting(tags: Iterable[str], container: str, of: Mapping[str, str]) -> str:
    """The first of the tags that is an image with these pins for this container, or ''."""
    return next((name for name in tags if name.startswith(_prefix(container, of))), "")


def stale(tags: Iterable[str], container: str, keep: str) -> list[str]:
    """The tags that bundles gave to images of this container, but for one."""
    return [name for name in tags if name.startswith(f"{container.lower()}:bundle-") and name != keep]


def _prefix(container: str, of: Mapping[str, str]) -> str:
    known = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
    return f"{container.lower()}:bundle-{known[:12]}-"


def _text(value: Any) -> str:
    """A value in one form, whether it was read as a setting or from the engine's JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value[:1] in ("[", "{") else value
        except ValueError:
            pass
    return value if isinstance(value, str) else json.dumps(value)
