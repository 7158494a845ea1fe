"""Ways to RAGFlow's API: over HTTP from here, or from inside its own container with what is there. Headers and bodies travel by socket or standard input, never in argv."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from host.docker import Docker, DockerError, NoDocker
from registration.calls import Call
from registration.entry import Place

SECONDS = 90  # RAGFlow tries the model for 10 s, and answers nobody while somebody's rerank runs


class Unreachable(Exception):
    """No answer from RAGFlow; the text says from where and why."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Whatever came back, not judged."""

    status: int
    text: str


# Sends one call and gives the answer. Raises Unreachable.
Transport = Callable[[Call], Answer]


def transport(place: Place, *, seconds: float = SECONDS, surroundings: Mapping[str, str] | None = None) -> Transport:
    """The way to a place. `surroundings` reach the Docker host where a container is asked."""
    if place.container:
        return InContainer(place, Docker(surroundings or {}, timeout=seconds + 5), seconds)
    return Http(place, seconds)


def _headers(place: Place) -> dict[str, str]:
    return {"Authorization": f"Bearer {place.key}", "Content-Type": "application/json", "Accept": "application/json"}


def _payload(call: Call) -> bytes | None:
    return None if call.body is None else json.dumps(call.body).encode()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key goes to the address that was set and to no other."""

    def redirect_request(self, *_: object) -> None:
        return None


@dataclass(frozen=True)
class Http:
    """From where this runs."""

    place: Place
    seconds: float = SECONDS

    def __call__(self, call: Call) -> Answer:
        request = urllib.request.Request(f"{self.place.url}{call.path}", data=_payload(call), headers=_headers(self.place), method=call.method)
        # a proxy for the internet knows no address of this machine
        local = (urlsplit(self.place.url).hostname or "") in ("localhost", "127.0.0.1", "::1")
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect(), *([urllib.request.ProxyHandler({})] if local else [])]
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=self.seconds) as answer:
                return Answer(status=answer.status, text=answer.read().decode(errors="replace"))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(status=error.code, text=error.read().decode(errors="replace"))
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "reason", None) or error
            raise Unreachable(f"{self.place.url} does not answer ({why or type(error).__name__})") from error


# Reads {method, url, headers, body, seconds} and writes the status in a line of its own, then the body.
_SCRIPT = """
import json, sys, urllib.error, urllib.request
asked = json.load(sys.stdin)
body = asked["body"].encode() if asked["body"] is not None else None
request = urllib.request.Request(asked["url"], data=body, headers=asked["headers"], method=asked["method"])
try:
    answer = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=asked["seconds"])
except urllib.error.HTTPError as error:
    answer = error
except OSError as error:
    sys.exit("%s" % (getattr(error, "reason", None) or error))
print(answer.getcode())
sys.stdout.write(answer.read().decode(errors="replace"))
""".strip()


@dataclass
class InContainer:
    """From inside RAGFlow's container, with its python3 or else its curl."""

    place: Place
    docker: Docker
    seconds: float = SECONDS
    _tool: str = field(default="", init=False)

    def __call__(self, call: Call) -> Answer:
        try:
            return self._send(call, self._tool or self._find())
        except NoDocker as error:
            raise Unreachable(str(error)) from error
        except DockerError as error:
            raise Unreachable(f"{self.place.url} inside {self.place.container} does not answer ({error})") from error

    def _find(self) -> str:
        look = "command -v python3 || command -v curl || true"
        self._tool = self.docker("exec", self.place.container, "sh", "-c", look).strip().rsplit("/", 1)[-1]
        if not self._tool:
            raise DockerError("neither python3 nor curl is in it")
        return self._tool

    def _send(self, call: Call, tool: str) -> Answer:
        run = ("exec", "--interactive", self.place.container)
        payload = _payload(call)
        if tool == "curl":
            said = self.docker(*run, "curl", "--config", "-", stdin=self._curl(call, payload))
            text, _, status = said.rpartition("\n")
        else:
            asked = {
                "method": call.method, "url": f"{self.place.url}{call.path}", "headers": _headers(self.place),
                "body": payload.decode() if payload is not None else None, "seconds": self.seconds,
            }  # fmt: skip
            status, _, text = self.docker(*run, "python3", "-c", _SCRIPT, stdin=json.dumps(asked)).partition("\n")
        if not status.strip().isdigit():
            raise DockerError("no HTTP status in what it said")
        return Answer(status=int(status), text=text)

    def _curl(self, call: Call, payload: bytes | None) -> str:
        """A configuration for curl: a JSON string is one of curl's quoted strings as well."""
        lines = {"url": f"{self.place.url}{call.path}", "request": call.method, "max-time": str(int(self.seconds)), "noproxy": "*"}
        text = [f"{name} = {json.dumps(value)}" for name, value in lines.items()]
        text += [f"header = {json.dumps(f'{name}: {value}')}" for name, value in _headers(self.place).items()]
        if payload is not None:
            text.append(f"data-raw = {json.dumps(payload.decode())}")
        return "\n".join([*text, "silent", "show-error", 'write-out = "\\n%{http_code}"', ""])
