"""A Docker daemon behind a proxy that rewrites what it says of itself, by TLS where that is asked for. Everything else goes through as it is."""

import json
import re
import select
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

REAL = "/var/run/docker.sock"
Facts = Mapping[str, Mapping[str, Any]]


@contextmanager
def rewritten(facts: Facts, *, tls: ssl.SSLContext | None = None, path: Path | None = None) -> Iterator[str]:
    """Address of the proxy (as DOCKER_HOST has it): tcp on a free port of 127.0.0.1, or the socket `path`. `facts` by route, {"info": {"SwapLimit": False}}."""
    if path:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(64)
    else:
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    address = f"unix://{path}" if path else f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    threading.Thread(target=_accept, args=(listener, facts, tls), daemon=True).start()
    try:
        yield address
    finally:
        listener.close()


def _accept(listener: socket.socket, facts: Facts, tls: ssl.SSLContext | None) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # closed: the test is over
        threading.Thread(target=_serve, args=(client, facts, tls), daemon=True).start()


def _serve(client: socket.socket, facts: Facts, tls: ssl.SSLContext | None) -> None:
    """One request, and the connection ends: a client that is told so opens another one for its next. An upgraded one lasts as long as both sides want it."""
    try:
        with closing(tls.wrap_socket(client, server_side=True) if tls else client) as near, closing(socket.socket(socket.AF_UNIX)) as far:
            head = _head(near)
            if not head:
                return
            far.connect(REAL)
            first, rest = head.split(b"\r\n", 1)
            upgraded = re.search(rb"(?im)^upgrade:", rest) is not None
            if not upgraded:
                rest = b"Connection: close\r\n" + re.sub(rb"(?im)^connection:.*\r\n", b"", rest)
            far.sendall(first + b"\r\n" + rest)
            found = re.match(rb"GET (?:/v[0-9.]+)?/(info|version)[ ?]", first)
            if found and found[1].decode() in facts:
                near.sendall(_changed(_all(far), facts[found[1].decode()]))
                return
            _relay(near, far)
    except (OSError, ValueError):
        return  # a client that went away, or does not speak TLS


def _head(near: socket.socket) -> bytes:
    """Up to the empty line, and what of the body came with it."""
    text = b""
    while b"\r\n\r\n" not in text and (more := near.recv(65536)):
        text += more
    return text


def _all(far: socket.socket) -> bytes:
    text = b""
    while more := far.recv(65536):
        text += more
    return text


def _changed(answer: bytes, facts: Mapping[str, Any]) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    said = json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])  # without the lengths of chunks
    body = json.dumps({**said, **facts}).encode()
    kept = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"transfer-encoding", b"content-length"))]
    return b"\r\n".join([*kept, b"Content-Length: %d" % len(body), b"", body])


def _relay(near: socket.socket, far: socket.socket) -> None:
    """Both ways in one thread, until the daemon has said all: a TLS socket is not to be read and written by two at once."""
    open_ends = [near, far]
    while True:
        waiting = isinstance(near, ssl.SSLSocket) and near in open_ends and near.pending()
        ready = [near] if waiting else select.select(open_ends, [], [])[0]
        for source in ready:
            more = source.recv(65536)
            if more:
                (far if source is near else near).sendall(more)
            elif source is far:
                return
            else:
                far.shutdown(socket.SHUT_WR)
                open_ends.remove(near)
