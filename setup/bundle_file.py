"""The file of a bundle: a plain tar, its parts first, then a manifest with the checksum of each, then the manifest's own checksum (docs/bundle.md).

A part of unknown size is streamed in and its header written afterwards; a part is read where it lies. Nothing is held in memory or copied.
"""

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from setup.edge import PIECE, Refusal

FORMAT = 1
MANIFEST, SEAL = "manifest.json", "manifest.json.sha256"
MANIFEST_LIMIT = 4 << 20
AGAIN = "copy it again from where it was made (compare sha256sum there and here), or run make bundle again"
Watch = Callable[[str, int, int], None]


def quiet(name: str, done: int, size: int) -> None:
    """Watches nothing."""


class Writer:
    """Writes a bundle to `path`, which must not be used before `finish`. `watch` is told (part, bytes so far, 0) as it grows."""

    def __init__(self, path: Path, *, watch: Watch = quiet) -> None:
        self._out, self._watch = path.open("wb"), watch
        self._members: list[dict[str, Any]] = []

    def part(self, name: str, fill: Callable[[Callable[[bytes], None]], object]) -> str:
        """Adds a part: `fill` gets a function that takes its next piece. Returns its SHA-256 in hex."""
        start, size, digest = self._out.tell(), 0, hashlib.sha256()
        self._out.write(_header(name, 0))

        def take(piece: bytes) -> None:
            nonlocal size
            size += self._out.write(piece)
            digest.update(piece)
            self._watch(name, size, 0)

        fill(take)
        self._out.write(bytes(-size % tarfile.BLOCKSIZE))
        end = self._out.tell()
        self._out.seek(start)
        self._out.write(_header(name, size))
        self._out.seek(end)
        self._members.append({"name": name, "size": size, "sha256": digest.hexdigest()})
        return digest.hexdigest()

    def file(self, name: str, source: Path) -> str:
        """Adds a file as a part."""
        with source.open("rb") as file:

            def fill(take: Callable[[bytes], None]) -> None:
                while piece := file.read(PIECE):
                    take(piece)

            return self.part(name, fill)

    def finish(self, manifest: Mapping[str, Any]) -> str:
        """Writes manifest and seal and closes the file. Returns the bundle's seal."""
        text = json.dumps({"format": FORMAT, **manifest, "parts": self._members}, indent=2).encode() + b"\n"
        seal = self.part(MANIFEST, lambda take: take(text))
        self.part(SEAL, lambda take: take(f"{seal}  {MANIFEST}\n".encode()))
        self._out.write(bytes(2 * tarfile.BLOCKSIZE))
        self.close()
        return seal

    def close(self) -> None:
        self._out.close()


def _header(name: str, size: int) -> bytes:
    """In GNU's form, which has room for sizes above 8 GiB: as long for any size."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


@dataclass(frozen=True)
class Part:
    """Where a part lies in the file: offset and size in bytes; its SHA-256 as the manifest has it."""

    name: str
    offset: int
    size: int
    sha256: str


@dataclass(frozen=True)
class BundleFile:
    """A bundle whose form is right. The bytes of its parts are only known to be right after `verify`."""

    path: Path
    seal: str
    manifest: Mapping[str, Any]
    parts: Mapping[str, Part]

    def under(self, folder: str) -> list[Part]:
        return [part for name, part in self.parts.items() if name.startswith(f"{folder}/")]

    def pieces(self, part: Part) -> Iterator[bytes]:
        """The bytes of a part. Raises Refusal where the file ends before it."""
        with self.path.open("rb") as file:
            file.seek(part.offset)
            left = part.size
            while left:
                piece = file.read(min(PIECE, left))
                if not piece:
                    raise Refusal(f"BUNDLE={self.path} is cut off in {part.name}; {AGAIN}")
                left -= len(piece)
                yield piece

    def verify(self, part: Part, *, watch: Watch = quiet) -> None:
        """Raises Refusal where a part is not what the manifest says."""
        digest, done = hashlib.sha256(), 0
        for piece in self.pieces(part):
            digest.update(piece)
            done += len(piece)
            watch(part.name, done, part.size)
        if digest.hexdigest() != part.sha256:
            raise Refusal(f"BUNDLE={self.path}: {part.name} is not what its manifest says: it was altered or damaged; {AGAIN}")

    def extract(self, part: Part, target: Path) -> None:
        with target.open("wb") as out:
            for piece in self.pieces(part):
                out.write(piece)


def read(path: Path) -> BundleFile:
    """Opens a bundle and checks its form: manifest, seal, and that it holds what the manifest lists and nothing else. Raises Refusal."""
    said = f"BUNDLE={path}"
    try:
        with tarfile.open(path, "r:") as tar:
            members = tar.getmembers()
        end = path.stat().st_size
    except FileNotFoundError:
        raise Refusal(f"{said}: there is no such file; give the path of what make bundle wrote") from None
    except tarfile.ReadError as failure:
        raise Refusal(f"{said} is cut off, or no bundle ({failure}); where it was compressed for the way, unpack it first; else {AGAIN}") from None
    except OSError as failure:
        raise Refusal(f"{said} cannot be read ({failure.strerror}); give the path of a file that you may read") from None
    found = {member.name: Part(member.name, member.offset_data, member.size, "") for member in members}
    if len(found) != len(members) or not all(member.isreg() for member in members):
        raise Refusal(f"{said} is no bundle: it holds a link, a folder, or one name twice; {AGAIN}")
    if MANIFEST not in found or SEAL not in found or any(part.offset + part.size > end for part in found.values()):
        what = "it is cut off" if found else "it is empty"
        raise Refusal(f"{said} is no whole bundle: {what}, or nothing that make bundle wrote; {AGAIN}")
    if found[MANIFEST].size > MANIFEST_LIMIT:
        raise Refusal(f"{said} is no bundle: its manifest has {found[MANIFEST].size} bytes; {AGAIN}")
    whole = BundleFile(path, "", {}, found)
    text = b"".join(whole.pieces(found[MANIFEST]))
    seal = hashlib.sha256(text).hexdigest()
    if b"".join(whole.pieces(found[SEAL])) != f"{seal}  {MANIFEST}\n".encode():
        raise Refusal(f"{said}: its manifest was altered or damaged; {AGAIN}")
    try:
        manifest = json.loads(text)
        form = manifest["format"]
    except (ValueError, KeyError, TypeError):
        raise Refusal(f"{said}: its manifest is none of make bundle's; {AGAIN}") from None
    if form != FORMAT:
        which = "an older" if isinstance(form, int) and form < FORMAT else "a newer"
        raise Refusal(
            f"{said} was made by {which} version of this project (format {form}, this one reads {FORMAT}); run make bundle from this commit"
        )
    try:
        parts = {entry["name"]: Part(entry["name"], found[entry["name"]].offset, entry["size"], entry["sha256"]) for entry in manifest["parts"]}
    except (ValueError, KeyError, TypeError) as failure:
        raise Refusal(f"{said}: its manifest does not fit its content ({failure!r}); {AGAIN}") from None
    sizes = {name: part.size for name, part in found.items() if name not in (MANIFEST, SEAL)}
    if sizes != {name: part.size for name, part in parts.items()}:
        raise Refusal(f"{said} does not hold what its manifest lists: it was altered or damaged; {AGAIN}")
    return BundleFile(path, seal, manifest, parts)
