"""A hub on this machine: Hugging Face's and ModelScope's API over a directory, with faults on demand and every request recorded.

    python -m tests.support.hub DIRECTORY --port 8080 --repo Qwen/Qwen3-Reranker-0.6B --revision 6e9e69830b95c52b5fd889b7690dda3329508de3

It answers what huggingface_hub 2.4 asks: /api/models/<repo>/revision/<revision>, /tree/<revision> (in pages), and HEAD and GET of
/<repo>/resolve/<revision>/<path> with Range; *.safetensors are LFS files, behind a redirect to /lfs/<sha256> on the same server.
"""

import argparse
import gzip
import hashlib
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

PAGE = 4
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "raw deflate": lambda content: zlib.compress(content)[2:-4],
    "br": lambda content: content,
}


@dataclass
class Reply:
    """What is answered in place of the right answer, so many times (-1: always), to a request whose path has `of` in it and that has a Range where `ranged`."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    of: str = ""
    times: int = 1
    ranged: bool = False
    length: int | None = None  # Content-Length, where it is not the body's; -1 is none


@dataclass
class Faults:
    """What goes wrong; each may be set while the server runs. Numbers of times count down, -1 is always; `only` limits byte faults to one path."""

    dead: bool = False
    status: int = 0
    token: str = ""
    gated: bool = False
    truncated: int = 0
    wrong: int = 0
    only: str = ""
    bytes_per_second: int = 0
    no_range: bool = False
    # A Content-Encoding that nobody asked for, of files and of JSON.
    encoding: str = ""
    chunked: bool = False
    no_checksums: bool = False
    etag: str = ""
    # The Link header of a page, with {next} and {first} in it.
    link: str = '<{next}>; rel="next"'
    replies: list[Reply] = field(default_factory=list)


@dataclass(frozen=True)
class Seen:
    """One request: `path` without the query, the Range header or '', the Authorization header or '', and how many bytes of a file went out."""

    method: str
    path: str
    range: str
    authorization: str
    sent: int


@dataclass
class Hub:
    """A directory as one revision of one repository. `url` is its endpoint while it serves."""

    directory: Path
    repo: str
    revision: str
    faults: Faults = field(default_factory=Faults)
    requests: list[Seen] = field(default_factory=list)
    url: str = ""
    # Address that LFS files are redirected to, as a hub's CDN; empty is this server's own.
    cdn: str = ""

    _changed: threading.Condition = field(default_factory=threading.Condition)
    _open: int = 0

    def begin(self) -> None:
        with self._changed:
            self._open += 1

    def end(self, seen: Seen) -> None:
        with self._changed:
            self._open -= 1
            self.requests.append(seen)
            self._changed.notify_all()

    def settled(self) -> list[Seen]:
        """The requests, once none is in progress: a client is done a moment before the server knows."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._open == 0, timeout=30):
                raise TimeoutError(f"{self._open} requests to {self.url} are still in progress after 30 s")
            return list(self.requests)

    def files(self) -> list[str]:
        return sorted(path.relative_to(self.directory).as_posix() for path in self.directory.rglob("*") if path.is_file())

    def content(self, path: str) -> bytes:
        return (self.directory / path).read_bytes()

    def ranges(self, name: str) -> list[str]:
        """The Range headers of the GETs that carried bytes of the file, in their order; '' for the whole."""
        ends = (f"/resolve/{self.revision}/{name}", f"/lfs/{sha256(self.content(name))}")
        return [seen.range for seen in self.settled() if seen.method == "GET" and seen.path.endswith(ends) and seen.sent > 0]

    def sent(self, name: str) -> int:
        """Bytes of the file that went out."""
        ends = (f"/resolve/{self.revision}/{name}", f"/lfs/{sha256(self.content(name))}")
        return sum(seen.sent for seen in self.settled() if seen.path.endswith(ends))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def is_lfs(path: str) -> bool:
    return path.endswith(".safetensors")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: Hub

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    sent = 0

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, self.sent = self.server.hub, 0
        hub.begin()
        url = urlsplit(self.path)
        try:
            self.answer(hub, unquote(url.path), {name: values[0] for name, values in parse_qs(url.query).items()})
        finally:
            header = self.headers.get
            hub.end(Seen(self.command, unquote(url.path), header("Range", ""), header("Authorization", ""), self.sent))

    def answer(self, hub: Hub, path: str, query: dict[str, str]) -> None:
        faults, token = hub.faults, self.headers.get("Authorization", "").removeprefix("Bearer ")
        if faults.dead:
            self.close_connection = True
            return
        for reply in faults.replies:
            if reply.times and reply.of in path and (not reply.ranged or "Range" in self.headers):
                reply.times -= 1
                return self.reply(reply)
        if faults.status:
            return self.refuse(faults.status, "", "out of order")
        if token and token != faults.token:
            return self.refuse(401, "", "Invalid credentials in Authorization header")
        api, files, scope = f"/api/models/{hub.repo}", f"/{hub.repo}/resolve/", f"/api/v1/models/{hub.repo}/repo"
        if path.startswith("/lfs/"):
            return self.file(hub, next(name for name in hub.files() if sha256(hub.content(name)) == path[5:]))
        if path in (scope, f"{scope}/files"):
            return self.modelscope(hub, path == scope, query)
        if not path.startswith((f"{api}/", files)) and path != api:
            return self.refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        if faults.token and not token:
            return self.refuse(401, "RepoNotFound", "Repository not found")
        revision = path.removeprefix(files).removeprefix(f"{api}/tree/").removeprefix(f"{api}/revision/").split("/")[0]
        if revision != hub.revision:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if path.startswith(f"{api}/revision/"):
            return self.json({"id": hub.repo, "modelId": hub.repo, "sha": hub.revision, "siblings": [{"rfilename": name} for name in hub.files()]})
        if path.startswith(f"{api}/tree/"):
            return self.tree(hub, int(query.get("cursor", "0")))
        if faults.gated:
            return self.refuse(403 if token else 401, "GatedRepo", f"Access to model {hub.repo} is restricted")
        name = path.removeprefix(f"{files}{hub.revision}/")
        if name not in hub.files():
            return self.refuse(404, "EntryNotFound", "Entry not found")
        if not is_lfs(name):
            return self.file(hub, name)
        content = hub.content(name)
        self.send_response(302)
        self.send_header("X-Repo-Commit", hub.revision)
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("X-Linked-ETag", f'"{sha256(content)}"')
        self.send_header("Location", f"{hub.cdn}/lfs/{sha256(content)}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def tree(self, hub: Hub, start: int) -> None:
        names = hub.files()
        entries: list[dict[str, object]] = []
        for name in names[start : start + PAGE]:
            content = hub.content(name)
            unstated = hub.faults.no_checksums
            entry: dict[str, object] = {"type": "file", "oid": "" if unstated else git_blob(content), "size": len(content), "path": name}
            if is_lfs(name):
                entry["lfs"] = {"oid": "" if unstated else sha256(content), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        page = f"http://{self.headers['Host']}/api/models/{quote(hub.repo)}/tree/{hub.revision}?recursive=true&cursor="
        self.json(
            entries,
            link=hub.faults.link.format(first=f"{page}0", next=f"{page}{start + PAGE}", cursor=start + PAGE) if start + PAGE < len(names) else "",
        )

    def modelscope(self, hub: Hub, one: bool, query: dict[str, str]) -> None:
        if query.get("Revision") != hub.revision:
            return self.refuse(404, "", "revision not found")
        if one:
            return self.file(hub, query["FilePath"])
        checksum = (lambda content: "") if hub.faults.no_checksums else sha256
        listed = [{"Path": name, "Type": "blob", "Size": len(hub.content(name)), "Sha256": checksum(hub.content(name))} for name in hub.files()]
        self.json({"Code": 200, "Success": True, "Data": {"Files": [*listed, {"Path": "folder", "Type": "tree", "Size": 0, "Sha256": ""}]}})

    def file(self, hub: Hub, name: str) -> None:
        whole = content = hub.content(name)
        faults = hub.faults
        faulty = self.command == "GET" and faults.only in ("", name)
        if faulty and faults.wrong:
            faults.wrong -= 1
            content = bytes(byte ^ 0xFF for byte in content)
        coding = faults.encoding if faults.only in ("", name) else ""
        if coding:
            content = ENCODERS[coding](content)
        ranged = "Range" in self.headers and not faults.no_range
        start = 0 if not ranged else int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
        if start >= len(content) > 0:
            return self.refuse(416, "", "Range not satisfiable")
        self.send_response(206 if ranged else 200)
        if coding:
            self.send_header("Content-Encoding", coding.removeprefix("raw "))
        if faults.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", faults.etag or f'"{sha256(whole) if is_lfs(name) else git_blob(whole)}"')
        self.send_header("X-Repo-Commit", hub.revision)
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        end = len(content)
        if faulty and faults.truncated:
            # Always the same byte: whoever goes on from there gets nothing more.
            faults.truncated -= 1
            end = max(start, len(content) // 2)
            self.close_connection = True
        step = max(faults.bytes_per_second // 20, 1) if faults.bytes_per_second else 1 << 20
        while start < end:
            piece = content[start : min(start + step, end)]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if faults.chunked else piece)
            self.sent += min(step, end - start)
            start += step
            if faults.bytes_per_second:
                time.sleep(0.05)
        if faults.chunked and end == len(content):
            self.wfile.write(b"0\r\n\r\n")

    def reply(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.length != -1:
            self.send_header("Content-Length", str(len(reply.body) if reply.length is None else reply.length))
        self.end_headers()
        self.wfile.write(reply.body)
        self.close_connection = True

    def json(self, value: object, link: str = "") -> None:
        body, coding = json.dumps(value).encode(), self.server.hub.faults.encoding
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        if coding:
            body = ENCODERS[coding](body)
            self.send_header("Content-Encoding", coding.removeprefix("raw "))
        self.send_header("Content-Length", str(len(body)))
        if link:
            self.send_header("Link", link)
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status: int, code: str, message: str) -> None:
        body = b"" if self.command == "HEAD" else json.dumps({"error": message}).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(directory: Path, repo: str, revision: str, *, faults: Faults | None = None, host: str = "127.0.0.1", port: int = 0) -> Iterator[Hub]:
    """Serves the directory at `hub.url` until the block ends; port 0 takes a free one."""
    hub = Hub(directory=directory, repo=repo, revision=revision, faults=faults or Faults())
    server = _Server((host, port), _Handler)
    server.hub = hub
    hub.url = f"http://{host}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--repo", required=True)
    parser.add_argument("--revision", required=True)
    parser.add_argument("--fault", action="append", default=[], metavar="NAME=VALUE", help="a field of Faults, e.g. truncated=1 or token=secret")
    options = parser.parse_args()
    faults = Faults()
    for name, _, value in (fault.partition("=") for fault in options.fault):
        setattr(faults, name, type(getattr(faults, name))(int(value) if value.lstrip("-").isdigit() else value))
    with serving(options.directory, options.repo, options.revision, faults=faults, host=options.host, port=options.port) as hub:
        print(hub.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
