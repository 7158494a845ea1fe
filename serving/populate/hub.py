"""What a hub has of a revision, by Hugging Face's API and by ModelScope's, and what its refusals mean."""

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from serving.populate.fetch import METADATA_TIMEOUT, PAUSE, Token, open_url, reason
from serving.populate.files import MirrorError, PopulateError, RemoteFile, safe, wanted

ListFiles = Callable[[str, str, str, Token], list[RemoteFile]]


def get_json(url: str, token: Token) -> tuple[Any, str]:
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


def refusal(error: urllib.error.HTTPError, *, where: str, repo: str, revision: str, token: Token, page: str) -> PopulateError | MirrorError:
    """The sentence for an answer of 4xx; `page` is where a person reads about the repository."""
    code = error.headers.get("X-Error-Code", "")
    set_token = "set it with: pulumi config set --secret modelToken"
    if token.withheld_from(where) and (error.code in (401, 403) or code in ("GatedRepo", "RepoNotFound")):
        return MirrorError(f"answered {error.code} without modelToken, which it does not get unless modelTokenHosts names it")
    if code == "GatedRepo" or (error.code == 403 and not code):
        known = f"the account of modelToken has no access to it: ask for it on {page}"
        if not token.value:
            known = f"ask for access on {page}, then give the token of that account; {set_token}"
        return PopulateError(f"{where} answered {error.code}: {repo} is gated or forbidden, {known}")
    if error.code == 404 and not code and "/api/v1/models/" in error.url:
        return PopulateError(f"{where} has no {repo} at revision {revision}: check model and modelRevision on {page}")
    if code == "RevisionNotFound":
        return PopulateError(f"{where} has no revision {revision} of {repo}: set modelRevision to one that is listed on {page}")
    if error.code == 401 and token.value and code != "RepoNotFound":
        return PopulateError(f"{where} answered 401 for {repo}: the token in modelToken is wrong or expired; {set_token}")
    if code == "RepoNotFound" or error.code == 401:
        private = "and modelToken may not read it" if token.value else f"or is private and needs a token ({set_token})"
        return PopulateError(f"{where} answered {error.code}: {repo} does not exist there, {private}; check the name in model")
    return MirrorError(f"answered {error.code} for {urllib.parse.urlsplit(error.url).path}")


def hub_files(endpoint: str, repo: str, revision: str, token: Token) -> list[RemoteFile]:
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


def modelscope_files(endpoint: str, repo: str, revision: str, token: Token) -> list[RemoteFile]:
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


def listing(list_files: ListFiles, mirror: str, repo: str, revision: str, token: Token) -> list[RemoteFile]:
    """The wanted files of the revision. MirrorError where the answer is not a file list, or names a file outside the directory."""
    try:
        files = [file for file in list_files(mirror, repo, revision, token) if wanted(file.path)]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise MirrorError(f"answered something that is not the file list of a hub ({type(error).__name__}: {error})") from error
    for file in files:
        if not safe(file.path):
            raise MirrorError(f"lists the path {file.path!r}, which leads out of the directory")
    return files
