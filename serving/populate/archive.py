"""A model from a tar on standard input."""

import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from serving.populate.files import CHUNK, INCOMPLETE, LocalFile, PopulateError, checksums, safe, settle, wanted
from serving.populate.progress import Progress
from serving.populate.whole import require_whole


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
                if not member.isreg() or not safe(name):
                    raise PopulateError(
                        f"the archive holds {member.name!r}, which is a link, a device or leads out of the directory: "
                        "make it with tar --dereference -C <model directory> -czf model.tar.gz ."
                    )
                source = archive.extractfile(member)
                assert source is not None  # a regular file
                path = room / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as out:
                    while chunk := source.read(CHUNK):
                        out.write(chunk)
                        progress.add(name, len(chunk))
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise PopulateError(
            f"the archive of modelPath is cut off or no tar ({error}): make it again with tar --dereference -C <model directory> -czf model.tar.gz ."
        ) from error
    tops = [room, *(path for path in room.iterdir() if path.is_dir())] if room.is_dir() else [room]
    top = next((path for path in tops if (path / "config.json").is_file()), room)
    require_whole(top, "the archive must hold the whole repository, at its top or under one folder")
    files = []
    for path in sorted(path for path in top.rglob("*") if path.is_file()):
        name = path.relative_to(top).as_posix()
        if wanted(name):
            files.append(LocalFile(name, path.stat().st_size, checksums(path)[0]))
            settle(path, target / name)
    return files
