"""Fill a directory with one revision of a model, whole and checked, or say in one sentence why not.

Sources: hub (Hugging Face's API, one mirror after the other), modelscope, archive (tar on stdin), directory (only looked at). Standard library only.
The bytes are fetched here, not by `hf download`: huggingface_hub 2.4 throws a partial file away when it is interrupted, so a killed download
of gigabytes would start at nothing. Partial files are kept in <target>/.incomplete under their checksum and go on with a Range request.
"""

import argparse
import fcntl
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from serving.model import MANIFEST
from serving.populate.archive import unpack
from serving.populate.fetch import Token, copy_repository
from serving.populate.files import (
    ABSENT,
    AGAIN,
    BLOCKED,
    FORBIDDEN,
    FULL,
    GATED,
    INCOMPLETE,
    MIB,
    REVISION,
    TOKEN,
    WITHHELD,
    LocalFile,
    MirrorError,
    PopulateError,
    holds,
    no_space,
    read_manifest,
    safe,
    write_manifest,
)
from serving.populate.hub import ListFiles, hub_files, listing, modelscope_files, refusal
from serving.populate.progress import say
from serving.populate.whole import require_readable, require_whole


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


def from_mirrors(list_files: ListFiles, mirrors: Sequence[str], options: argparse.Namespace, token: Token) -> list[LocalFile]:
    """The repository from the first mirror that has it whole and right; what one has fetched, the next keeps. PopulateError once all have failed."""
    repo, revision = options.repo, options.revision
    failed: list[tuple[str, MirrorError]] = []
    for mirror in (mirror.rstrip("/") for mirror in mirrors):
        try:
            files = listing(list_files, mirror, repo, revision, token)
            return copy_repository(files, options.target, token, f"{repo} at {revision} from {mirror}")
        except MirrorError as error:
            failed.append((mirror, error))
        except urllib.error.HTTPError as error:
            failed.append((mirror, refusal(error, where=mirror, repo=repo, revision=revision, token=token)))
        say(f"mirror given up: {mirror} {failed[-1][1]}")
    raise PopulateError(verdict(failed, options, token))


def verdict(failed: Sequence[tuple[str, MirrorError]], options: argparse.Namespace, token: Token) -> str:
    """What all mirrors together say of the model, with the remedy; one sentence."""
    repo = options.repo
    where = {error.kind: mirror for mirror, error in reversed(failed)}  # the first one that says so
    set_token = "set it with: pulumi config set --secret modelToken"
    key = "modelMirrors" if options.source == "hub" else "modelscopeEndpoint"
    page = f"{where.get(GATED) or where.get(REVISION) or where.get(ABSENT)}/{repo}"
    gated = f"ask for access on {page}, then give the token of that account; {set_token}"
    private = "modelToken may not read it" if token.value else f"it is private and needs a token ({set_token})"
    said = {
        GATED: ("gated", f"the account of modelToken has no access to it: ask for it on {page}" if token.value else gated),
        TOKEN: ("refused", f"the token in modelToken is wrong or expired; {set_token}"),
        WITHHELD: ("gated or private", "name the mirror in modelTokenHosts if you trust it with modelToken"),
        REVISION: ("not there at this revision", f"check model and modelRevision, and set modelRevision to one that is listed on {page}"),
        ABSENT: ("not there", f"check the name in model, or {private}"),
        BLOCKED: ("blocked", f"check the network, httpsProxy and caBundle, or set {key} to what this host reaches"),
    }
    broken = ("not to be had", f"check the network, httpsProxy and caBundle, or set {key} to what this host reaches")
    kinds = [kind for kind in said if kind in where] or [""]
    if "" in where and BLOCKED not in kinds and GATED not in kinds:
        kinds.append("")
    state, _ = said.get(kinds[0], broken)
    if kinds[0] in (REVISION, ABSENT) and where.keys() & {BLOCKED, ""}:
        state += " where it could be asked"
    remedies = "; or ".join(dict.fromkeys(said.get(kind, broken)[1] for kind in dict.fromkeys(kinds)))
    accounts = "; ".join(f"{mirror} {error}" for mirror, error in failed)
    return f"{repo} at {options.revision} could not be downloaded, it is {state} ({accounts}): {remedies}; then {AGAIN}"


def read_token(stream: IO[bytes]) -> str:
    """The token: the first line of stdin, empty for none. Checked here because an HTTP library would print it in its complaint."""
    token = stream.readline().strip()
    if not all(33 <= byte <= 126 for byte in token):
        raise PopulateError("the token in modelToken has a blank or a foreign character: set it with: pulumi config set --secret modelToken")
    return token.decode("ascii")


def vouched(files: Sequence[LocalFile]) -> str:
    """What the source's checksums say of the files."""
    unstated = sum(not file.checked for file in files)
    if not unstated:
        return "all checksums right"
    return f"sizes only, the source states no checksum for {'any' if unstated == len(files) else unstated} of them"


def populate(options: argparse.Namespace, stdin: IO[bytes]) -> None:
    """PopulateError where the model is not whole afterwards."""
    if options.source == "directory":
        require_readable(options.target)
        say(f"{options.target} holds a whole model that user {os.getuid()} can read")
        return
    token = Token(read_token(stdin) if options.token_stdin else "", tuple(options.token_host))
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
            checked = "checksums computed" if options.source == "archive" else vouched(files)
            say(f"{options.repo} at {options.revision} is complete: {len(files)} files, {total} MiB, {checked}")
    except OSError as error:
        if error.errno in FULL:
            raise PopulateError(no_space(options.target, f"writing stopped ({error.strerror})")) from error
        if error.errno in FORBIDDEN:
            raise PopulateError(
                f"user {os.getuid()} cannot write to {error.filename or options.target} ({error.strerror}): "
                f"remove the volume if others filled it, then {AGAIN}"
            ) from error
        raise PopulateError(
            f"{error.filename or options.target} cannot be used ({error.strerror or error}): check the disk of the Docker host, then {AGAIN}"
        ) from error


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="serving populate", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--source", required=True, choices=["hub", "modelscope", "archive", "directory"])
    parser.add_argument("--repo", required=True, help="owner/name")
    parser.add_argument("--revision", required=True)
    parser.add_argument("--mirror", action="append", default=[], help="hub: endpoint; repeat it, they are tried in this order")
    parser.add_argument("--endpoint", default="", help="modelscope: its address")
    parser.add_argument("--target", required=True, type=Path, help="directory to fill")
    parser.add_argument("--token-stdin", action="store_true", help="read the token from the first line of stdin")
    parser.add_argument("--token-host", action="append", default=[], help="address that the token is sent to; repeat it, no other gets it")
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
