"""Fill a directory with one revision of a model, whole and checked, or say in one sentence why not.

Sources: hub (Hugging Face's API, one mirror after the other), modelscope, archive (tar on stdin), directory (only looked at). Standard library only.
The bytes are fetched here, not by `hf download`: huggingface_hub 2.4 throws a partial file away when it is interrupted, so a killed download
of gigabytes would start at nothing. Partial files are kept in <target>/.incomplete under their checksum and go on with a Range request.
"""

import argparse
import errno
import fcntl
import hashlib
import http.client
import json
import os
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from serving.facts import MANIFEST

INCOMPLETE = ".incomplete"
WANTED = (".safetensors", ".json", ".txt", ".jinja", ".model", ".tiktoken")
# Folders with the same weights in other formats.
UNWANTED_FOLDERS = ("onnx", "openvino", "gguf", "original", "coreml")
METADATA_TIMEOUT = 15.0
DOWNLOAD_TIMEOUT = 30.0
# Attempts without one new byte before a mirror is given up.
ATTEMPTS = 4
# Seconds before the second attempt; later ones wait up to three times as long.
PAUSE = 1.0
CHUNK = 1 << 20
MIB = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
AGAIN = "run pulumi up again, it goes on from here"


class PopulateError(Exception):
    """No other mirror can help: one sentence with the remedy."""


class MirrorError(Exception):
    """This mirror failed; another may do."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub states it: size in bytes; `sha256`, or `git_blob` (SHA-1 of git's blob) where it states only that; '' is unstated."""

    path: str
    size: int
    url: str
    sha256: str = ""
    git_blob: str = ""

    @property
    def checksum(self) -> str:
        return self.sha256 or self.git_blob


@dataclass(frozen=True)
class LocalFile:
    """A file as it lies on the disk, for the manifest."""

    path: str
    size: int
    sha256: str


ListFiles = Callable[[str, str, str, str], list[RemoteFile]]


class Progress:
    """One line every few seconds: the file, MiB of MiB over all files (`total` 0 is unknown), MiB/s since the last line."""

    def __init__(self, total: int, done: int, *, every: float = 3.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.done, self.every, self.clock = total, done, every, clock
        self.since, self.at = done, clock()

    def add(self, path: str, count: int) -> None:
        self.done += count
        now = self.clock()
        if now - self.at >= self.every:
            total = f" of {self.total // MIB} MiB" if self.total else ""
            say(f"{path}: {self.done // MIB} MiB{total}, {max(self.done - self.since, 0) / (now - self.at) / MIB:.1f} MiB/s")
            self.since, self.at = self.done, now


def say(line: str) -> None:
    print(line, flush=True)


def wanted(path: str) -> bool:
    """Weights as safetensors, configuration, tokenizer, templates; no copy of the weights in another format."""
    name = PurePosixPath(path)
    return name.suffix in WANTED and not name.name.startswith(".") and name.parts[0] not in UNWANTED_FOLDERS and path != MANIFEST


def safe(path: str) -> bool:
    """Whether a path that others chose stays inside the directory that it is joined to."""
    return bool(path) and "\\" not in path and "\0" not in path and not path.startswith("/") and ".." not in PurePosixPath(path).parts


# -- HTTP ---------------------------------------------------------------------------------------------------------------------------------------


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows 308 on Python 3.10 too, and never carries the token to another host."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> urllib.request.Request | None:
        new = super().redirect_request(req, fp, 307 if code == 308 else code, msg, headers, newurl)
        if new is not None and urllib.parse.urlsplit(newurl)[:2] != urllib.parse.urlsplit(req.full_url)[:2]:
            new.remove_header("Authorization")
        return new

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302


def open_url(url: str, token: str, *, timeout: float, headers: Mapping[str, str] | None = None) -> http.client.HTTPResponse:
    """GET. Raises urllib.error.HTTPError for 4xx and 5xx, OSError or http.client.HTTPException for the rest."""
    request = urllib.request.Request(url, headers={"User-Agent": "ragflow-reranker", "Accept-Encoding": "identity", **(headers or {})})
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    response: http.client.HTTPResponse = urllib.request.build_opener(_Redirects()).open(request, timeout=timeout)
    return response


def get_json(url: str, token: str) -> tuple[Any, str]:
    """Body and Link header. MirrorError where the answer is no JSON or does not come; HTTPError for 4xx."""
    last = ""
    for attempt in range(2):
        if attempt:
            time.sleep(PAUSE)
        try:
            with open_url(url, token, timeout=METADATA_TIMEOUT) as response:
                return json.loads(response.read()), response.headers.get("Link", "")
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise
            last = f"answered {error.code}"
        except ValueError:
            last = "answered something that is no JSON, as a login page of a proxy does"
        except (OSError, http.client.HTTPException) as error:
            last = reason(error)
    raise MirrorError(last)


def reason(error: Exception) -> str:
    """What went wrong on the network, in a few words."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return f"does not answer ({type(cause).__name__}: {cause})" if isinstance(cause, Exception) else f"does not answer ({cause})"


def refusal(error: urllib.error.HTTPError, *, where: str, repo: str, revision: str, token: str, page: str) -> PopulateError | MirrorError:
    """The sentence for an answer of 4xx; `page` is where a person reads about the repository."""
    code = error.headers.get("X-Error-Code", "")
    set_token = "set it with: pulumi config set --secret modelToken"
    if code == "GatedRepo" or (error.code == 403 and not code):
        known = f"the account of modelToken has no access to it: ask for it on {page}"
        if not token:
            known = f"ask for access on {page}, then give the token of that account; {set_token}"
        return PopulateError(f"{where} answered {error.code}: {repo} is gated or forbidden, {known}")
    if error.code == 404 and not code and "/api/v1/models/" in error.url:
        return PopulateError(f"{where} has no {repo} at revision {revision}: check model and modelRevision on {page}")
    if code == "RevisionNotFound":
        return PopulateError(f"{where} has no revision {revision} of {repo}: set modelRevision to one that is listed on {page}")
    if error.code == 401 and token and code != "RepoNotFound":
        return PopulateError(f"{where} answered 401 for {repo}: the token in modelToken is wrong or expired; {set_token}")
    if code == "RepoNotFound" or error.code == 401:
        private = "and modelToken may not read it" if token else f"or is private and needs a token ({set_token})"
        return PopulateError(f"{where} answered {error.code}: {repo} does not exist there, {private}; check the name in model")
    return MirrorError(f"answered {error.code} for {urllib.parse.urlsplit(error.url).path}")


# -- what a hub has -----------------------------------------------------------------------------------------------------------------------------


def hub_files(endpoint: str, repo: str, revision: str, token: str) -> list[RemoteFile]:
    """Files of the revision by Hugging Face's API, page by page."""
    base = f"{endpoint}/{urllib.parse.quote(repo)}/resolve/{urllib.parse.quote(revision, safe='')}/"
    url = f"{endpoint}/api/models/{urllib.parse.quote(repo)}/tree/{urllib.parse.quote(revision, safe='')}?recursive=true&expand=false"
    files = []
    while url:
        entries, link = get_json(url, token)
        for entry in entries:
            if entry["type"] == "file":
                lfs = entry.get("lfs") or {}
                files.append(
                    RemoteFile(
                        path=entry["path"],
                        size=int(lfs.get("size", entry["size"])),
                        url=base + urllib.parse.quote(entry["path"]),
                        sha256=str(lfs.get("oid", "")).removeprefix("sha256:"),
                        git_blob="" if lfs else entry["oid"],
                    )
                )
        # A mirror may hand out the next page's address on the host that it mirrors.
        following = link[1 : link.index(">")] if 'rel="next"' in link else ""
        url = f"{endpoint}{following[following.index('/api/models/') :]}" if following else ""
    return files


def modelscope_files(endpoint: str, repo: str, revision: str, token: str) -> list[RemoteFile]:
    """Files of the revision by ModelScope's API."""
    base = f"{endpoint}/api/v1/models/{urllib.parse.quote(repo)}/repo"
    body, _ = get_json(f"{base}/files?{urllib.parse.urlencode({'Revision': revision, 'Recursive': 'true'})}", token)
    if body.get("Code", 200) != 200:
        raise PopulateError(f"{endpoint} refused {repo} at {revision}: {str(body.get('Message', ''))[:200]}; check model and modelRevision")
    return [
        RemoteFile(
            path=entry["Path"],
            size=int(entry["Size"]),
            url=f"{base}?{urllib.parse.urlencode({'Revision': revision, 'FilePath': entry['Path']})}",
            sha256=entry.get("Sha256") or "",
        )
        for entry in body["Data"]["Files"]
        if entry["Type"] == "blob"
    ]


# -- files on the disk --------------------------------------------------------------------------------------------------------------------------


def checksums(path: Path) -> tuple[str, str]:
    """SHA-256 of the file, and SHA-1 of the git blob that it would be; both in hex."""
    sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
            blob.update(chunk)
    return sha256.hexdigest(), blob.hexdigest()


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


def size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def settle(source: Path, destination: Path) -> None:
    """Move a whole file to its place, readable by all, and on the disk before anyone relies on it."""
    with source.open("rb") as file:
        os.fsync(file.fileno())
    source.chmod(0o644)
    destination.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, destination)


def download(file: RemoteFile, partial: Path, token: str, progress: Progress) -> None:
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


def fetch(file: RemoteFile, target: Path, token: str, progress: Progress) -> LocalFile:
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


def copy_repository(files: Sequence[RemoteFile], target: Path, token: str, where: str) -> list[LocalFile]:
    """All files of a repository, the small ones first. PopulateError where the disk cannot hold what is missing."""
    present = [size if (size := size_of(target / file.path)) == file.size else min(size_of(partial_path(target, file)), file.size) for file in files]
    total, have = sum(file.size for file in files), sum(present)
    free = shutil.disk_usage(target).free
    say(f"{where}: {len(files)} files, {total // MIB} MiB, {have // MIB} MiB of them already here, {free // MIB} MiB free")
    if total - have > free:
        raise PopulateError(no_space(target, f"{(total - have) // MIB + 1} MiB are still to come but {free // MIB} MiB are free"))
    progress = Progress(total, have)
    return [fetch(file, target, token, progress) for file in sorted(files, key=lambda file: file.size)]


def no_space(target: Path, what: str) -> str:
    return f"the disk under {target} is full, {what}: free space on the Docker host (docker system df shows what takes it), then {AGAIN}"


# -- completeness -------------------------------------------------------------------------------------------------------------------------------


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


def check_directory(directory: Path) -> None:
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


# -- archive ------------------------------------------------------------------------------------------------------------------------------------


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


# -- manifest -----------------------------------------------------------------------------------------------------------------------------------


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


# -- the command --------------------------------------------------------------------------------------------------------------------------------


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """One population of a directory at a time; a lock dies with its process. A killed pulumi may leave its container at work."""
    handle = os.open(target, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another download into {target} is at work, waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def listing(list_files: ListFiles, mirror: str, repo: str, revision: str, token: str) -> list[RemoteFile]:
    """The wanted files of the revision. MirrorError where the answer is not a file list, or names a file outside the directory."""
    try:
        files = [file for file in list_files(mirror, repo, revision, token) if wanted(file.path)]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise MirrorError(f"answered something that is not the file list of a hub ({type(error).__name__}: {error})") from error
    for file in files:
        if not safe(file.path):
            raise MirrorError(f"lists the path {file.path!r}, which leads out of the directory")
    return files


def from_mirrors(list_files: ListFiles, mirrors: Sequence[str], options: argparse.Namespace, token: str) -> list[LocalFile]:
    """The repository from the first mirror that has it whole and right; what one has fetched, the next keeps."""
    repo, revision = options.repo, options.revision
    failed = []
    for mirror in (mirror.rstrip("/") for mirror in mirrors):
        try:
            files = listing(list_files, mirror, repo, revision, token)
            return copy_repository(files, options.target, token, f"{repo} at {revision} from {mirror}")
        except MirrorError as error:
            problem: MirrorError | PopulateError = error
        except urllib.error.HTTPError as error:
            problem = refusal(error, where=mirror, repo=repo, revision=revision, token=token, page=f"{mirror}/{repo}")
        if isinstance(problem, PopulateError):
            raise problem
        failed.append(f"{mirror} {problem}")
        say(f"mirror given up: {failed[-1]}")
    key = "modelMirrors" if options.source == "hub" else "modelscopeEndpoint"
    raise PopulateError(
        f"{repo} could not be downloaded, {'; '.join(failed)}: check the network, httpsProxy and caBundle, or set {key} to what this host reaches, "
        f"then {AGAIN}"
    )


def read_token(stream: IO[bytes]) -> str:
    """The token: the first line of stdin, empty for none. Checked here because an HTTP library would print it in its complaint."""
    token = stream.readline().strip()
    if not all(33 <= byte <= 126 for byte in token):
        raise PopulateError("the token in modelToken has a blank or a foreign character: set it with: pulumi config set --secret modelToken")
    return token.decode("ascii")


def populate(options: argparse.Namespace, stdin: IO[bytes]) -> None:
    """PopulateError where the model is not whole afterwards."""
    if options.source == "directory":
        check_directory(options.target)
        say(f"{options.target} holds a whole model that user {os.getuid()} can read")
        return
    token = read_token(stdin) if options.token_stdin else ""
    try:
        options.target.mkdir(parents=True, exist_ok=True)
        with alone(options.target):
            old = read_manifest(options.target)
            if old and holds(options.target, old, options.repo, options.revision):
                # The revision is the content: an archive is not read to find out whether it holds something else.
                other = "; for the model of another archive set modelRevision to another name" if options.source == "archive" else ""
                say(f"{options.repo} at {options.revision} is already here, {len(old['files'])} files with the sizes of their manifest{other}")
                return
            # From here on the files may be of two revisions: nothing may vouch for them.
            (options.target / MANIFEST).unlink(missing_ok=True)
            (options.target / INCOMPLETE).mkdir(exist_ok=True)
            if options.source == "hub":
                files = from_mirrors(hub_files, options.mirror, options, token)
            elif options.source == "modelscope":
                files = from_mirrors(modelscope_files, [options.endpoint], options, token)
            else:
                files = unpack(stdin, options.target)
            for path in {str(entry["path"]) for entry in old.get("files", [])} - {file.path for file in files}:
                if safe(path):
                    (options.target / path).unlink(missing_ok=True)
            require_whole(options.target, f"{options.repo} at {options.revision} is not a model as safetensors; check model and modelRevision")
            write_manifest(options.target, repo=options.repo, revision=options.revision, source=options.source, files=files)
            total = sum(file.size for file in files) // MIB
            checked = "checksums computed" if options.source == "archive" else "all checksums right"
            say(f"{options.repo} at {options.revision} is complete: {len(files)} files, {total} MiB, {checked}")
    except OSError as error:
        if error.errno in FULL:
            raise PopulateError(no_space(options.target, f"writing stopped ({error.strerror})")) from error
        if error.errno in FORBIDDEN:
            raise PopulateError(
                f"user {os.getuid()} cannot write to {error.filename or options.target} ({error.strerror}): "
                f"remove the volume if others filled it, then {AGAIN}"
            ) from error
        raise


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="serving populate", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--source", required=True, choices=["hub", "modelscope", "archive", "directory"])
    parser.add_argument("--repo", required=True, help="owner/name")
    parser.add_argument("--revision", required=True)
    parser.add_argument("--mirror", action="append", default=[], help="hub: endpoint; repeat it, they are tried in this order")
    parser.add_argument("--endpoint", default="", help="modelscope: its address")
    parser.add_argument("--target", required=True, type=Path, help="directory to fill")
    parser.add_argument("--token-stdin", action="store_true", help="read the token from the first line of stdin")
    options = parser.parse_args(argv)
    if options.source == "hub" and not options.mirror:
        parser.error("--source hub needs --mirror")
    if options.source == "modelscope" and not options.endpoint:
        parser.error("--source modelscope needs --endpoint")
    return options


def main(argv: Sequence[str]) -> int:
    """Exit status 0 where the model is whole, else 1 and one sentence on stderr."""
    options = parse(argv)
    os.umask(0o022)  # the reranker, and whoever mounts the volume, must read what is written here
    try:
        populate(options, sys.stdin.buffer)
    except PopulateError as error:
        print(f"populate: {error}", file=sys.stderr, flush=True)
        return 1
    return 0
