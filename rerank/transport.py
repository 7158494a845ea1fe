"""One HTTP exchange that is over by its deadline, whatever the other side does.

requests' timeout is one of each read: a server that sends a byte a second would hold a call for ever, and nothing limits a name lookup. So an exchange runs in a
thread of its own, the caller waits for it until the deadline, and then shuts its connection.
"""

import contextlib
import contextvars
import http.client
import ipaddress
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from rerank.errors import InvalidInput, MalformedAnswer, RerankError, TimedOut, Unreachable

CONNECTIONS = 128  # kept for threads that call at one time; more are made where they are needed, and closed afterwards
ANSWER_BYTES = 64 << 20
_PIECE = 64 << 10


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer with any status. Header names in lower case; `proxy` is the one it came through, without its user, or ''."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    proxy: str


@dataclass
class _Exchange:
    """How far it is, for whoever waits for it."""

    stage: str = "connecting"
    connection: http.client.HTTPConnection | None = None
    reply: Reply | None = None
    error: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)
    over: bool = False

    def shut(self) -> None:
        """Ends what the thread waits for."""
        self.over = True
        with contextlib.suppress(OSError, AttributeError):
            self.connection.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]


_running: contextvars.ContextVar[_Exchange] = contextvars.ContextVar("rerank_exchange")


class _Noted:
    """A connection that tells its exchange when it is used."""

    def connect(self) -> None:
        _running.get().connection = self  # type: ignore[assignment]
        super().connect()  # type: ignore[misc]

    def request(self, *arguments: Any, **options: Any) -> None:
        exchange = _running.get()
        exchange.connection = self  # type: ignore[assignment]
        super().request(*arguments, **options)  # type: ignore[misc]
        exchange.stage = "waiting"


class _Http(_Noted, urllib3.connection.HTTPConnection):
    pass


class _Https(_Noted, urllib3.connection.HTTPSConnection):
    pass


class _Adapter(HTTPAdapter):
    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*arguments, **options)
        noted = {urllib3.connection.HTTPConnection: _Http, urllib3.connection.HTTPSConnection: _Https}
        pool.ConnectionCls = noted.get(pool.ConnectionCls, pool.ConnectionCls)  # a SOCKS proxy has its own
        return pool


class Transport:
    """Exchanges with the service at `base_url`, over connections that are kept; for any number of threads."""

    def __init__(self, base_url: str, api_key: str | None, ca_bundle: str | None) -> None:
        self.base_url, self.ca_bundle = base_url, ca_bundle
        self.direct = is_near(urlsplit(base_url).hostname or "")
        self.session = requests.Session()
        self.session.mount("http://", _Adapter(pool_maxsize=CONNECTIONS))
        self.session.mount("https://", _Adapter(pool_maxsize=CONNECTIONS))
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # a function, so that no ~/.netrc takes the key's place
        self.session.auth = lambda request: _signed(request, api_key)
        # an answer in pieces of its own size: its limit is counted as it comes
        self.session.headers.update({"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "rerank"})

    def exchange(self, method: str, path: str, seconds: float, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        """The answer, whole, within `seconds`. RerankError where there is none; redirects are answers."""
        exchange = _Exchange()
        end = time.monotonic() + seconds
        context = contextvars.copy_context()
        threading.Thread(
            target=context.run, args=(self._run, exchange, method, path, end, body, headers or {}), name="rerank-exchange", daemon=True
        ).start()
        try:
            exchange.done.wait(max(0.0, end - time.monotonic()))
        finally:
            if not exchange.done.is_set():
                exchange.shut()
        if exchange.reply is not None:
            return exchange.reply
        if exchange.error is None or time.monotonic() >= end:
            raise self.late(exchange.stage, seconds)
        if isinstance(exchange.error, RerankError):
            raise exchange.error
        if isinstance(exchange.error, Exception):
            raise self.fault(exchange.error, exchange.stage, seconds) from exchange.error
        raise exchange.error

    def _run(self, exchange: _Exchange, method: str, path: str, end: float, body: bytes | None, headers: Mapping[str, str]) -> None:
        _running.set(exchange)
        try:
            exchange.reply = self._answer(exchange, method, path, end, body, headers)
        except BaseException as error:  # the caller raises it
            exchange.error = error
        finally:
            exchange.done.set()

    def _answer(self, exchange: _Exchange, method: str, path: str, end: float, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        url = self.base_url + path
        request = self.session.prepare_request(requests.Request(method, url, data=body, headers=dict(headers)))
        how = self.session.merge_environment_settings(url, {}, True, self.ca_bundle, None)
        proxies = {} if self.direct else dict(how["proxies"])
        left = max(0.001, end - time.monotonic())
        # not by the session's send, which reads a redirect's body to its end, whatever its size
        response = self.session.get_adapter(url).send(request, stream=True, timeout=(left, left), verify=how["verify"] or True, proxies=proxies)
        try:
            exchange.stage = "reading"
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise MalformedAnswer("The answer is compressed, which was not asked for.", remedy="Turn that off in the proxy before the service.")
            parts, size = [], 0
            for piece in response.raw.stream(_PIECE, decode_content=False):
                parts.append(piece)
                size += len(piece)
                if size > ANSWER_BYTES:
                    raise MalformedAnswer(f"The answer is larger than {ANSWER_BYTES >> 20} MiB.", remedy="Is base_url the reranker itself?")
                if exchange.over or time.monotonic() >= end:
                    raise TimeoutError
            whole = {name.lower(): value for name, value in response.headers.items()}
            return Reply(status=response.status_code, headers=whole, body=b"".join(parts), proxy=_proxy(url, proxies))
        except BaseException:
            response.close()
            raise

    def late(self, stage: str, seconds: float) -> TimedOut:
        said = {
            "connecting": ("no connection was made", "Is the address right, and does a firewall let it through?"),
            "waiting": ("no answer came", "Allow more time (deadline=, timeout=), or send fewer or shorter documents."),
            "reading": ("the answer was not whole", "The connection is slow, or the server is."),
        }
        what, remedy = said[stage]
        return TimedOut(f"{self.base_url}: {what} within {seconds:.3g} s.", remedy=remedy)

    def fault(self, error: Exception, stage: str, seconds: float) -> RerankError:
        """What an error of requests, urllib3 or a socket means to the caller."""
        causes = list(_causes(error))

        def among(*kinds: type[BaseException]) -> BaseException | None:
            return next((cause for cause in causes if isinstance(cause, kinds)), None)

        at = self.base_url
        if among(requests.exceptions.ProxyError, urllib3.exceptions.ProxyError):
            return Unreachable(
                f"{at}: the proxy that the environment names (HTTP_PROXY, HTTPS_PROXY) cannot be used.",
                remedy=f"Add {urlsplit(at).hostname} to NO_PROXY to go without it.",
            )
        if "CA certificate bundle" in str(error):
            return InvalidInput("There is no such file as ca_bundle or REQUESTS_CA_BUNDLE names.", remedy="It must be a PEM file.")
        if among(requests.exceptions.SSLError, urllib3.exceptions.SSLError):
            return self._tls(causes)
        if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, UnicodeError)):
            return InvalidInput(f"base_url {at} cannot be used.", remedy="Write it as http://HOST:PORT.")
        if among(TimeoutError, requests.exceptions.Timeout, urllib3.exceptions.ReadTimeoutError):
            return self.late(stage, seconds)
        if among(socket.gaierror, urllib3.exceptions.NameResolutionError):
            return Unreachable(
                f"{at}: there is no host named {urlsplit(at).hostname}.",
                remedy="A container's name is known only on its Docker network; from the Docker host use http://127.0.0.1:PORT.",
                repeatable=True,
            )
        if among(ConnectionRefusedError):
            return Unreachable(f"{at}: the connection was refused.", remedy="Is the service running, and is it this port?", repeatable=True)
        if stage != "reading" and among(ConnectionResetError, BrokenPipeError, ConnectionAbortedError):
            return Unreachable(f"{at}: hung up before an answer.", remedy="Its log says why; perhaps it is starting or stopping.", repeatable=True)
        if stage == "connecting" and (refused := among(OSError)) and not among(http.client.HTTPException):
            why = getattr(refused, "strerror", None) or type(causes[-1]).__name__
            return Unreachable(f"{at}: cannot be connected to ({why}).", remedy="Is the address right, and is there a way to it?", repeatable=True)
        if stage == "reading":
            return MalformedAnswer(f"{at}: the answer broke off.", remedy="The service or a proxy before it ended the connection; its log says why.")
        return MalformedAnswer(
            f"{at}: what answers there speaks no HTTP ({type(causes[-1]).__name__}).", remedy="Is it this port, and http or https?"
        )

    def _tls(self, causes: list[BaseException]) -> Unreachable:
        text = " ".join(str(cause) for cause in causes)
        if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text.lower():
            return Unreachable(f"{self.base_url}: the server does not speak TLS.", remedy="Write http:// in place of https://.")
        if "CERTIFICATE_VERIFY_FAILED" in text:
            why = next((getattr(cause, "verify_message", "") for cause in causes if getattr(cause, "verify_message", "")), "")
            return Unreachable(
                f"{self.base_url}: its certificate is not trusted{f' ({why})' if why else ''}.",
                remedy="Name your company's CA, a PEM file, in REQUESTS_CA_BUNDLE or ca_bundle=.",
            )
        return Unreachable(f"{self.base_url}: no TLS connection could be made.", remedy="Is it this port, and https rather than http?")


def is_near(host: str) -> bool:
    """Whether a proxy of the environment is passed over: this machine, and names that no proxy could know, such as a container's."""
    host = host.lower().rstrip(".")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".docker.internal"))


def _signed(request: requests.PreparedRequest, api_key: str | None) -> requests.PreparedRequest:
    if api_key:
        request.headers["Authorization"] = f"Bearer {api_key}"
    return request


def _proxy(url: str, proxies: Mapping[str, str]) -> str:
    found = requests.utils.select_proxy(url, dict(proxies)) or ""
    return found.rpartition("@")[2] if found else ""


def _causes(error: BaseException) -> "list[BaseException]":
    """The error and all that it says it comes from, the innermost last."""
    found: list[BaseException] = []
    rest: list[object] = [error]
    while rest:
        one = rest.pop(0)
        if isinstance(one, BaseException) and one not in found:
            found.append(one)
            rest += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    return found
