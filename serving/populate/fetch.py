"""Bytes over HTTP: a file that goes on where it was cut off, and is checked before it counts."""

import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving.populate.files import (
    CHUNK,
    FORBIDDEN,
    FULL,
    INCOMPLETE,
    MIB,
    LocalFile,
    MirrorError,
    PopulateError,
    RemoteFile,
    checksums,
    no_space,
    settle,
    size_of,
)
from serving.populate.progress import Progress, say

METADATA_TIMEOUT = 15.0
DOWNLOAD_TIMEOUT = 30.0
# Attempts without one new byte before a mirror is given up.
ATTEMPTS = 4
# Seconds before the second attempt; later ones wait up to three times as long.
PAUSE = 1.0


@dataclass(frozen=True)
class Token:
    """The token of the model's hub, and the addresses (scheme://host[:port]) that it is for: it is sent to no others. '' is none."""

    value: str = field(default="", repr=False)
    hosts: tuple[str, ...] = ()

    def goes_to(self, url: str) -> bool:
        return bool(self.value) and _origin(url) in {_origin(host) for host in self.hosts}

    def withheld_from(self, url: str) -> bool:
        """Whether there is one, and this address does not get it."""
        return bool(self.value) and not self.goes_to(url)


def _origin(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url.lower())
    return parts.scheme, parts.netloc


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows 308 on Python 3.10 too, and never carries the token to another host."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> urllib.request.Request | None:
        new = super().redirect_request(req, fp, 307 if code == 308 else code, msg, headers, newurl)
        if new is not None and urllib.parse.urlsplit(newurl)[:2] != urllib.parse.urlsplit(req.full_url)[:2]:
            new.remove_header("Authorization")
        return new

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302


def open_url(url: str, token: Token, *, timeout: float, headers: Mapping[str, str] | None = None) -> http.client.HTTPResponse:
    """GET. Raises urllib.error.HTTPError for 4xx and 5xx, OSError or http.client.HTTPException for the rest."""
    request = urllib.request.Request(url, headers={"User-Agent": "ragflow-reranker", "Accept-Encoding": "identity", **(headers or {})})
    if token.goes_to(url):
        request.add_header("Authorization", f"Bearer {token.value}")
    response: http.client.HTTPResponse = urllib.request.build_opener(_Redirects()).open(request, timeout=timeout)
    return response


def reason(error: Exception) -> str:
    """What went wrong on the network, in a few words."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return f"does not answer ({type(cause).__name__}: {cause})" if isinstance(cause, Exception) else f"does not answer ({cause})"


def verified(path: Path, file: RemoteFile) -> str:
    """SHA-256 of the file where it is what the hub states, else ''."""
    if not path.is_file() or path.stat().st_size != file.size:
        return ""
    sha256, blob = checksums(path)
    return sha256 if file.checksum in ("", sha256 if file.sha256 else blob) else ""


def partial_path(target: Path, file: RemoteFile) -> Path:
    """Where a file grows: named by its content, so that another revision or mirror goes on with the same bytes or with none."""
    name = file.checksum or hashlib.sha256(f"{file.url} {file.size}".encode()).hexdigest()
    return target / INCOMPLETE / name


def download(file: RemoteFile, partial: Path, token: Token, progress: Progress) -> None:
    """Append to `partial` until it has the stated size. MirrorError after ATTEMPTS in a row without a new byte; HTTPError for 4xx."""
    failures, last, best = 0, "", size_of(partial)
    while (have := size_of(partial)) < file.size:
        if failures:
            say(f"{file.path}: {last} at {have // MIB} MiB of {file.size // MIB} MiB, trying again")
            time.sleep(PAUSE * min(failures, 3))
        try:
            with open_url(file.url, token, timeout=DOWNLOAD_TIMEOUT, headers={"Range": f"bytes={have}-"} if have else {}) as response:
                if have and response.status != 206:
                    progress.add(file.path, -have)
                    have = 0
                receive(response, partial, have, file, progress)
            last = "the server ended the file early"
        except urllib.error.HTTPError as error:
            if error.code == 416:
                progress.add(file.path, -have)
                partial.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                raise
            last = f"the server answered {error.code}"
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in (*FULL, *FORBIDDEN):
                raise
            last = f"the server {reason(error)}"
        # More than ever before: a server without Range starts over each time and would never end.
        failures = 0 if size_of(partial) > best else failures + 1
        best = max(best, size_of(partial))
        if failures >= ATTEMPTS:
            raise MirrorError(f"gave {file.path} only up to byte {size_of(partial)} of {file.size} ({last})")


def receive(response: http.client.HTTPResponse, partial: Path, offset: int, file: RemoteFile, progress: Progress) -> None:
    with partial.open("r+b" if partial.exists() else "wb", buffering=0) as out:
        if os.fstat(out.fileno()).st_size > offset:
            out.truncate(offset)
        out.seek(offset)
        while offset < file.size and (chunk := response.read1(min(CHUNK, file.size - offset))):
            out.write(chunk)
            offset += len(chunk)
            progress.add(file.path, len(chunk))


def fetch(file: RemoteFile, target: Path, token: Token, progress: Progress) -> LocalFile:
    """One file, whole and right at its place. What is wrong is thrown away and fetched once more; then MirrorError."""
    destination, partial = target / file.path, partial_path(target, file)
    if sha256 := verified(destination, file):
        return LocalFile(file.path, file.size, sha256)
    destination.unlink(missing_ok=True)
    for again in (False, True):
        if size_of(partial) > file.size:
            partial.unlink()
        if file.size == 0:
            partial.touch()
        download(file, partial, token, progress)
        if file.size > 64 * MIB:
            say(f"{file.path}: checking")
        if sha256 := verified(partial, file):
            settle(partial, destination)
            return LocalFile(file.path, file.size, sha256)
        partial.unlink()
        progress.add(file.path, -file.size)
        if not again:
            say(f"{file.path}: its checksum is not {file.checksum}, fetching it once more")
    raise MirrorError(f"gave {file.path} twice with another checksum than {file.checksum}")


def copy_repository(files: Sequence[RemoteFile], target: Path, token: Token, where: str) -> list[LocalFile]:
    """All files of a repository, the small ones first. PopulateError where the disk cannot hold what is missing."""
    present = [size if (size := size_of(target / file.path)) == file.size else min(size_of(partial_path(target, file)), file.size) for file in files]
    total, have = sum(file.size for file in files), sum(present)
    free = shutil.disk_usage(target).free
    say(f"{where}: {len(files)} files, {total // MIB} MiB, {have // MIB} MiB of them already here, {free // MIB} MiB free")
    if total - have > free:
        raise PopulateError(no_space(target, f"{(total - have) // MIB + 1} MiB are still to come but {free // MIB} MiB are free"))
    progress = Progress(total, have)
    return [fetch(file, target, token, progress) for file in sorted(files, key=lambda file: file.size)]
