"""What the page is made of, read once. The files hold nothing of a deployment: what they show comes from DATA."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

HOME, DATA = "/", "/page/data"
MARK = "x-rerank-page"  # no form and no other site can send it: what the browser sends by itself is not enough for a rerank
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
SAFE = (
    ("content-security-policy", _POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
)


@dataclass(frozen=True, kw_only=True)
class File:
    """A file's content; `headers` has its type and its tag, by which a browser asks whether it is still the same."""

    body: bytes
    tag: str
    headers: tuple[tuple[str, str], ...]


def _read(path: Path) -> File:
    body = path.read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
    return File(body=body, tag=tag, headers=(("content-type", _KINDS[path.suffix]), ("etag", tag), ("cache-control", "private, no-cache"), *SAFE))


FILES = {
    HOME if path.name == "index.html" else f"/page/{path.name}": _read(path)
    for path in sorted(Path(__file__).parent.iterdir())
    if path.suffix in _KINDS
}
ROUTES = {path: "GET" for path in (*FILES, DATA)}
