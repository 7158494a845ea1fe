"""Bytes over HTTP: a file that goes on where it was cut off, and is checked before it counts."""

import datetime
import email.utils
import hashlib
import http.client
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving.populate.files import (
    BLOCKED,
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
from serving.populate.whole import wrong_kind

METADATA_TIMEOUT = 15.0
DOWNLOAD_TIMEOUT = 30.0
# Attempts without one new byte before a mirror is given up.
ATTEMPTS = 4
# Seconds before the second attempt; later ones wait up to three times as long.
PAUSE = 1.0
# Seconds that a mirror may ask for by Retry-After; whoever asks for more is given up for the next.
PATIENCE = 120.0
PAGE = "a web page in its place, as a proxy's login page or a 'verify you are human' is"


class Again(MirrorError):
    """This answer was no use, and the next may be; `wait`: seconds that the mirror asked for."""

    def __init__(self, text: str, kind: str = "", wait: float | None = None) -> None:
        super().__init__(text, kind)
        self.wait = wait


class NoPart(Again):
    """The part of a file that was asked for did not come: the whole is to be asked for."""


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
    """Follows 308 on Python 3.10 too, to no other scheme than http and https and not from https to http, and never carries the token to another host."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> urllib.request.Request | None:
        old, to = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if to.scheme not in ("http", "https") or (old.scheme, to.scheme) == ("https", "http"):
            raise MirrorError(f"redirects from {old.scheme} to {to.scheme or 'nowhere'}, which is not followed")
        new = super().redirect_request(req, fp, 307 if code == 308 else code, msg, headers, newurl)
        if new is not None and (to.scheme, to.netloc) != (old.scheme, old.netloc):
            new.remove_header("Authorization")
        return new

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except (ValueError, MirrorError):
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def open_url(url: str, token: Token, *, timeout: float, headers: Mapping[str, str] | None = None) -> http.client.HTTPResponse:
    """GET. Again where another attempt may help, HTTPError for the refusals of the mirror itself, MirrorError for answers that lead nowhere."""
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "ragflow-reranker", "Accept-Encoding": "identity", **(headers or {})})
        if token.goes_to(url):
            request.add_header("Authorization", f"Bearer {token.value}")
        response: http.client.HTTPResponse = urllib.request.build_opener(_Redirects()).open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (408, 425, 429) or error.code >= 500:
            raise Again(f"answered {error.code}", wait=_asked_to_wait(error)) from error
        if 300 <= error.code < 400:
            raise MirrorError(f"answered {error.code}, and its redirects lead in a circle or nowhere") from error
        # A CDN refuses a signed address that expired, or this host: the mirror may give out another one.
        if error.url != url and error.code != 416 and not error.headers.get("X-Error-Code"):
            where = urllib.parse.urlsplit(error.url).netloc.rpartition("@")[2]
            raise Again(f"redirects to {where}, which answered {error.code}", BLOCKED if error.code in (401, 403, 451) else "") from error
        raise
    except http.client.HTTPException as error:
        raise Again(_broken(error)) from error
    except OSError as error:
        raise Again(reason(error), BLOCKED) from error
    except ValueError as error:
        raise MirrorError(f"leads to an address that is none ({error})") from error
    if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        response.close()
        raise Again(f"sent {PAGE}", BLOCKED)
    return response


def _asked_to_wait(error: urllib.error.HTTPError) -> float | None:
    """Seconds by Retry-After, which has a number or a date; None where it has neither. MirrorError where it is more than PATIENCE."""
    value = error.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value, re.ASCII):
        seconds = float(value)
    else:
        try:
            when = email.utils.parsedate_to_datetime(value)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        seconds = (
            (when if when.tzinfo else when.replace(tzinfo=datetime.timezone.utc)) - datetime.datetime.now(datetime.timezone.utc)
        ).total_seconds()
    if seconds > PATIENCE:
        raise MirrorError(f"answered {error.code} and asks to wait for {seconds:.0f} s, which is too long") from error
    return max(seconds, 0.0)


def pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body, decoded where it was compressed although nobody asked for that. Again where it cannot be."""
    coding = response.headers.get("Content-Encoding", "").strip().lower()
    if coding in ("", "identity"):
        while chunk := response.read1(CHUNK):
            yield chunk
        return
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise Again(f"sent {coding!r} though nothing but plain bytes was asked for")
    decoder = zlib.decompressobj(47)  # gzip, or deflate with zlib's header
    first = True
    try:
        while chunk := response.read1(CHUNK >> 4):
            if first and coding == "deflate" and not (chunk[0] & 15 == 8 and int.from_bytes(chunk[:2].ljust(2, b"\0"), "big") % 31 == 0):
                decoder = zlib.decompressobj(-15)
            first = False
            yield decoder.decompress(chunk)
        yield decoder.flush()
    except zlib.error as error:
        raise Again(f"sent {coding} that cannot be decoded") from error
    if not first and not decoder.eof:
        raise Again("broke off in the middle")


def reason(error: Exception) -> str:
    """What went wrong on the network, in a few words."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return f"does not answer ({type(cause).__name__}: {cause})" if isinstance(cause, Exception) else f"does not answer ({cause})"


def _broken(error: http.client.HTTPException) -> str:
    closed = isinstance(error, http.client.RemoteDisconnected)
    return reason(error) if closed else f"broke off, or speaks no HTTP ({type(error).__name__})"


def broken(error: Exception) -> str:
    """What went wrong while a body came."""
    return _broken(error) if isinstance(error, http.client.HTTPException) else f"stopped ({type(error).__name__}: {error})"


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
    """Append to `partial` until it has the stated size. MirrorError after ATTEMPTS in a row without a new byte; HTTPError for 4xx. What is there stays."""
    failures, last, part = 0, Again(""), True
    while (have := size_of(partial)) < file.size:
        if failures:
            say(f"{file.path}: the server {last} at {have // MIB} MiB of {file.size // MIB} MiB, trying again")
            time.sleep(PAUSE * min(failures, 3) if last.wait is None else last.wait)
        try:
            with open_url(file.url, token, timeout=DOWNLOAD_TIMEOUT, headers={"Range": f"bytes={have}-"} if have and part else {}) as response:
                start = begins(response, file, have)
                require_same(response, file, partial)
                receive(response, partial, start, have, file, progress)
            last = Again("ended the file early")
        except urllib.error.HTTPError as error:
            if error.code != 416 or not have:
                raise
            last, part = Again("answered 416"), False
        except Again as error:
            last, part = error, part and not isinstance(error, NoPart)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in (*FULL, *FORBIDDEN):
                raise
            last = Again(broken(error))
        failures = 0 if size_of(partial) > have else failures + 1
        if failures >= ATTEMPTS:
            raise MirrorError(f"gave {file.path} only up to byte {size_of(partial)} of {file.size} (it {last})", last.kind)


def begins(response: http.client.HTTPResponse, file: RemoteFile, have: int) -> int:
    """The byte of the file that the body begins with, at most `have`. Again where the answer is not this file, or not the part that goes on."""
    headers, compressed = response.headers, response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity")
    start = 0
    if response.status == 206:
        given = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip(), re.ASCII)
        start = int(given[1]) if given else file.size
        if compressed or not given or start > have or given[2] not in ("*", str(file.size)):
            raise NoPart(f"sent another part than the one from byte {have} ({headers.get('Content-Range', 'it does not say which')})")
    elif response.status not in (200, 203):
        raise Again(f"answered {response.status}")
    elif not compressed and headers.get("Content-Length", str(file.size)).strip() != str(file.size):
        raise Again(f"sent {headers['Content-Length']} bytes for a file of {file.size}")
    return start


def require_same(response: http.client.HTTPResponse, file: RemoteFile, partial: Path) -> None:
    """Again, with the part that is there thrown away, where the file changed since it came. A checksum would tell in the end; without one only the ETag does."""
    tag, note = response.headers.get("ETag", ""), beside(partial, "etag")
    if file.checksum or not tag:
        return
    changed = size_of(partial) and note.is_file() and note.read_text(encoding="utf-8") != tag
    note.write_text(tag, encoding="utf-8")
    if changed:
        partial.unlink()
        raise Again("has another file now than when the first part came")


def beside(partial: Path, what: str) -> Path:
    """Where something is noted about a file on its way that has no checksum."""
    return partial.with_name(f"{partial.name}.{what}")


def receive(response: http.client.HTTPResponse, partial: Path, at: int, have: int, file: RemoteFile, progress: Progress) -> None:
    """Append what is beyond `have` of a body that begins with byte `at`: a server that knows no Range sends everything again."""
    with partial.open("r+b" if partial.exists() else "wb", buffering=0) as out:
        out.seek(have)
        for chunk in pieces(response):
            if at == 0 and chunk.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
                raise Again(f"sent {PAGE}", BLOCKED)
            new = chunk[max(have - at, 0) : max(file.size - at, 0)]
            at += len(chunk)
            out.write(new)
            progress.add(file.path, len(new))
            if at >= file.size:
                return


def fetch(file: RemoteFile, target: Path, token: Token, progress: Progress) -> LocalFile:
    """One file, whole and right at its place. What is wrong is thrown away and fetched once more; then MirrorError."""
    destination, partial = target / file.path, partial_path(target, file)
    done = beside(partial, "done")
    if (sha256 := verified(destination, file)) and (file.checksum or (done.is_file() and done.read_text(encoding="utf-8") == sha256)):
        return LocalFile(file.path, file.size, sha256, bool(file.checksum))
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
            if not file.checksum:
                done.write_text(sha256, encoding="utf-8")
            return LocalFile(file.path, file.size, sha256, bool(file.checksum))
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
    settled = []
    for file in sorted(files, key=lambda file: (file.path != "config.json", file.size)):
        settled.append(fetch(file, target, token, progress))
        # Before gigabytes follow that nobody can use.
        if file.path == "config.json" and (kind := next(wrong_kind(target / file.path), "")):
            raise PopulateError(f"{where}: {kind}")
    return settled
