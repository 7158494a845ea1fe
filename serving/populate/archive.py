"""A model from a tar on standard input."""

import lzma
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from serving.model import weight_files
from serving.populate.files import CHUNK, INCOMPLETE, LocalFile, PopulateError, checksums, safe, settle, wanted
from serving.populate.progress import Progress
from serving.populate.whole import require_whole

MAKE = "make it again with tar --dereference -C <model directory> -czf model.tar.gz ."


def unpack(stream: IO[bytes], target: Path) -> list[LocalFile]:
    """The wanted files of a tar (plain, gzip, bzip2 or xz), at its top or under one folder. PopulateError for links, devices and paths outside."""
    room = target / INCOMPLETE / "archive"
    shutil.rmtree(room, ignore_errors=True)
    progress = Progress(0, 0)
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                name = str(PurePosixPath(member.name))
                if member.isdir():
                    continue
                if not safe(name):
                    raise PopulateError(f"the archive holds {member.name!r}, which leads out of the directory: {MAKE}")
                # What other systems leave beside the files (._config.json, .DS_Store), other formats of the weights, a clone's own files.
                if not wanted(PurePosixPath(name).name) or any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts[:-1]):
                    continue
                if not member.isreg():
                    raise PopulateError(f"the archive holds {member.name!r}, which is a link or a device in place of a file: {MAKE}")
                source = archive.extractfile(member)
                assert source is not None  # a regular file
                path = room / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as out:
                    while chunk := source.read(CHUNK):
                        out.write(chunk)
                        progress.add(name, len(chunk))
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise PopulateError(f"the archive of modelPath is cut off or no tar ({error}; zip and zst are not read): {MAKE}") from error
    top = _top(room)
    try:
        require_whole(top, f"the archive must hold the whole repository, at its top or under one folder: {MAKE}")
    except PopulateError as error:
        raise PopulateError(str(error).replace(f"the model in {top}", "the model in the archive of modelPath")) from error
    files = []
    for path in sorted(path for path in top.rglob("*") if path.is_file()):
        name = path.relative_to(top).as_posix()
        if wanted(name):
            files.append(LocalFile(name, path.stat().st_size, checksums(path)[0]))
            settle(path, target / name)
    return files


def _top(room: Path) -> Path:
    """Where the model lies: at the top, or in the one folder that holds one. PopulateError where several do."""
    room.mkdir(parents=True, exist_ok=True)
    folders = [path for path in sorted(room.iterdir()) if path.is_dir()]
    if len(folders) < len(list(room.iterdir())) or not folders:
        return room
    models = [path for path in folders if (path / "config.json").is_file() and weight_files(path)]
    if len(models) > 1:
        raise PopulateError(f"the archive holds several models ({', '.join(path.name for path in models)}), and one is wanted: {MAKE}")
    return (models or [path for path in folders if (path / "config.json").is_file()] or folders)[0]
