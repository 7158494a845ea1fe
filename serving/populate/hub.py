"""What a hub has of a revision, by Hugging Face's API and by ModelScope's, and what its refusals mean."""

import http.client
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from serving.populate.fetch import ATTEMPTS, METADATA_TIMEOUT, PAUSE, Again, Token, broken, open_url, pieces
from serving.populate.files import (
    ABSENT,
    BLOCKED,
    GATED,
    MIB,
    REVISION,
    TOKEN,
    WITHHELD,
    MirrorError,
    RemoteFile,
    safe,
    wanted,
)

ListFiles = Callable[[str, str, str, Token], list[RemoteFile]]
# Far beyond what a model has.
MOST_BYTES, MOST_PAGES = 64 * MIB, 500


def get_json(url: str, token: Token) -> tuple[Any, str]:
    """Body and Link header. MirrorError where the answer is no JSON or does not come; HTTPError for 4xx."""
    last = Again("")
    for attempt in range(ATTEMPTS):
        # One that asks to wait is asked more often than one that is silent.
        if attempt >= 2 and last.wait is None:
            break
        if attempt:
            time.sleep(PAUSE if last.wait is None else last.wait)
        try:
            with open_url(url, token, timeout=METADATA_TIMEOUT) as response:
                body = bytearray()
                for piece in pieces(response):
                    body += piece
                    if len(body) > MOST_BYTES:
                        raise MirrorError(f"sent more than {MOST_BYTES // MIB} MiB for a list of files")
                return json.loads(body), ", ".join(response.headers.get_all("Link", []))
        except Again as error:
            last = error
        except urllib.error.HTTPError:
            raise
        except (ValueError, RecursionError):
            last = Again("answered something that is no JSON, or a part of it", BLOCKED)
        except (OSError, http.client.HTTPException) as error:
            last = Again(broken(error))
    raise last


def refusal(error: urllib.error.HTTPError, *, where: str, repo: str, revision: str, token: Token) -> MirrorError:
    """What an answer of 4xx means. Another mirror may know better, so it ends nothing."""
    code, said = error.headers.get("X-Error-Code", ""), f"answered {error.code}"
    if token.withheld_from(where) and (error.code in (401, 403) or code in ("GatedRepo", "RepoNotFound")):
        return MirrorError(f"{said} without modelToken, which it does not get unless modelTokenHosts names it", WITHHELD)
    if code == "GatedRepo":
        return MirrorError(f"{said}: {repo} is gated there", GATED)
    if code == "RevisionNotFound":
        return MirrorError(f"{said}: it has no revision {revision} of {repo}", REVISION)
    if error.code == 404 and not code and "/api/v1/models/" in error.url:  # ModelScope, which does not say which of the two
        return MirrorError(f"{said}: it has no {repo} at revision {revision}", REVISION)
    if code == "RepoNotFound" or error.code in (401, 404, 410):
        if error.code == 401 and token.value and code != "RepoNotFound":
            return MirrorError(f"{said}: it does not take modelToken", TOKEN)
        if code == "EntryNotFound" or (error.code != 401 and "/resolve/" in error.url):
            return MirrorError(f"{said} for {urllib.parse.urlsplit(error.url).path}, which it lists")
        return MirrorError(f"{said}: {repo} does not exist there, or only for others", ABSENT)
    if error.code in (403, 407, 451):
        return MirrorError(f"{said}: it, or a proxy before it, refuses this host", BLOCKED)
    return MirrorError(f"{said} for {urllib.parse.urlsplit(error.url).path}")


_LINK = re.compile(r"""<([^>]*)>((?:\s*;\s*[^\s=;,"]+(?:\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s;,"]*))?)*)""")
_REL = re.compile(r""";\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]+))""", re.IGNORECASE)


def next_link(header: str, url: str) -> str:
    """The address that a Link header (RFC 8288; several of them joined by commas) has for the next page, absolute; '' where it has none."""
    for target, parameters in _LINK.findall(header):
        if any("next" in (quoted or plain).lower().split() for quoted, plain in _REL.findall(parameters)):
            return str(urllib.parse.urljoin(url, target.strip()))
    return ""


def hub_files(endpoint: str, repo: str, revision: str, token: Token) -> list[RemoteFile]:
    """Files of the revision by Hugging Face's API, page by page."""
    base = f"{endpoint}/{urllib.parse.quote(repo)}/resolve/{urllib.parse.quote(revision, safe='')}/"
    url = f"{endpoint}/api/models/{urllib.parse.quote(repo)}/tree/{urllib.parse.quote(revision, safe='')}?recursive=true&expand=false"
    files, asked = [], set[str]()
    while url:
        if url in asked or len(asked) >= MOST_PAGES:
            raise MirrorError("has a list of files whose pages lead in a circle")
        asked.add(url)
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
        _, found, following = next_link(link, url).partition("/api/models/")
        url = f"{endpoint}/api/models/{following}" if found else ""
    return files


def modelscope_files(endpoint: str, repo: str, revision: str, token: Token) -> list[RemoteFile]:
    """Files of the revision by ModelScope's API."""
    base = f"{endpoint}/api/v1/models/{urllib.parse.quote(repo)}/repo"
    body, _ = get_json(f"{base}/files?{urllib.parse.urlencode({'Revision': revision, 'Recursive': 'true'})}", token)
    # It answers 200 where it refuses.
    if body.get("Code", 200) != 200 or body.get("Success") is False or not (body.get("Data") or {}).get("Files"):
        said = " ".join(str(body.get("Message") or "it has no files").split())[:200]
        raise MirrorError(f"refused {repo} at {revision} (code {body.get('Code')}: {said})", REVISION)
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


def listing(list_files: ListFiles, mirror: str, repo: str, revision: str, token: Token) -> list[RemoteFile]:
    """The wanted files of the revision. MirrorError where the answer is not a file list, names a file outside the directory, or has no model."""
    try:
        files = list({file.path: file for file in list_files(mirror, repo, revision, token) if wanted(file.path)}.values())
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise MirrorError(f"answered something that is not the file list of a hub ({type(error).__name__}: {error})") from error
    for file in files:
        if not safe(file.path):
            raise MirrorError(f"lists the path {file.path!r}, which leads out of the directory")
    names = {file.path for file in files}
    if lacks := [
        what
        for what, there in (
            ("config.json", "config.json" in names),
            ("*.safetensors", any("/" not in n and n.endswith(".safetensors") for n in names)),
        )
        if not there
    ]:
        raise MirrorError(f"lists no {' and no '.join(lacks)} for {repo} at {revision}, so it has no model as safetensors there", ABSENT)
    return files
