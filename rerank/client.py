"""The rerank service as a Python object. Needs requests alone."""

import json
import logging
import random
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from rerank.errors import (
    Failed,
    InvalidInput,
    MalformedAnswer,
    Overloaded,
    Rejected,
    RerankError,
    TimedOut,
    TooLong,
    Unauthorised,
    Unreachable,
    WrongModel,
)
from rerank.results import Health, Item, Part, RerankResult, ScoreResult, health_of, joined, parsed, require_sorted, scores_of, told
from rerank.transport import Reply, Transport

DEADLINE_LIMIT_SECONDS = 3600.0  # the longest that the service takes
PAUSE_SECONDS = 0.2  # before the first repetition, twice as long before each further one
# The service is to answer a little before the caller stops waiting: this share of the time left, and so much at most.
MARGIN, MARGIN_SECONDS = 0.1, 0.5
LARGE_BODY = 1 << 20  # a server that refuses a larger one may hang up while it is still sent

log = logging.getLogger("rerank")


class RerankClient:
    """Asks the service at `base_url`, e.g. http://127.0.0.1:8123, with or without /v1. Any number of threads may use one client; it keeps its connections.

    api_key     sent as a Bearer token; None where the service asks for none
    model       the name to ask for; None is whatever is served
    timeout     seconds that a call takes at most, connecting and repeating included; a call's `deadline` takes its place
    retries     how often a call is sent again where it could not be delivered, or the service says when to come back and there is time
    ca_bundle   a PEM file of the CAs to trust, in place of requests' own and REQUESTS_CA_BUNDLE

    Proxies are those of the environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY). Never by a proxy: this machine, names without a dot, *.docker.internal.
    Raises InvalidInput where one of them cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float = 30.0,
        retries: int = 2,
        ca_bundle: str | None = None,
    ) -> None:
        self.base_url = _address(base_url)
        if api_key and not re.fullmatch("[!-~]+", api_key):
            raise InvalidInput("api_key has a character that an HTTP header cannot carry.", remedy="Is there a space or a line break in it?")
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise InvalidInput(f"retries is {retries!r}.", remedy="It must be a whole number from 0.")
        self.model, self.timeout, self.retries = model, _seconds("timeout", timeout), retries
        self.has_key = bool(api_key)
        self.transport = Transport(self.base_url, api_key or None, ca_bundle)
        self._redact = api_key or None
        self._most = _Most()

    def __repr__(self) -> str:
        return f"RerankClient({self.base_url!r}, model={self.model!r}, api_key={'set' if self.has_key else None})"

    def __enter__(self) -> "RerankClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections that are kept; the client can still be used."""
        self.transport.session.close()

    # -- calls

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        *,
        deadline: float | None = None,
        instruction: str | None = None,
        max_tokens_per_doc: int | None = None,
        unscored_as: str | None = None,
        fresh: bool = False,
    ) -> RerankResult:
        """The documents by relevance to the query, best first; the `top_n` best where it is not None or 0.

        deadline             seconds for this call in all. The service is told of it, and scores what it can by then. None: the service's own deadline,
                             and this client's timeout. A call too large for one request is split, and its parts share the deadline, or else the timeout
        instruction          another instruction than the service's
        max_tokens_per_doc   cuts each document to so many tokens
        unscored_as          what documents without a score are given: typical or below (docs/calls.md)
        fresh                takes no score from the service's cache

        Raises RerankError; InvalidInput before anything is sent.
        """
        if top_n is not None and (isinstance(top_n, bool) or not isinstance(top_n, int) or top_n < 0):
            raise InvalidInput(f"top_n is {top_n!r}.", remedy="It must be a whole number; None or 0 gives all documents.")
        fields = {"top_n": top_n or None, "instruction": instruction, "max_tokens_per_doc": max_tokens_per_doc}
        call = _Call(self, "/v1/rerank", query, documents, fields, deadline, unscored_as=unscored_as, fresh=fresh)
        parts = call.answered()
        facts = told(parts, seconds=call.seconds())
        scores = {part.start + place: score for part in parts for place, score in part.scores.items()}
        without = set(facts["unscored"])
        order = sorted(scores, key=lambda place: (-scores[place], place in without, place))[: top_n or None]
        items = tuple(Item(place, scores[place], call.documents[place]) for place in order)
        entries = [{"index": item.index, "relevance_score": item.score} for item in items]
        return RerankResult(**facts, raw=joined(parts, "results", entries, facts["tokens"]), items=items)

    def score(
        self,
        query: str,
        documents: Iterable[str],
        *,
        deadline: float | None = None,
        instruction: str | None = None,
        max_tokens_per_doc: int | None = None,
        fresh: bool = False,
    ) -> ScoreResult:
        """A score for each document, in the documents' order; all of them or an error. Parameters and errors as with `rerank`."""
        fields = {"instruction": instruction, "max_tokens_per_doc": max_tokens_per_doc}
        call = _Call(self, "/v1/score", query, documents, fields, deadline, fresh=fresh)
        parts = call.answered()
        facts = told(parts, seconds=call.seconds())
        scores = tuple(part.scores[place] for part in parts for place in range(part.count))
        entries = [{"index": place, "object": "score", "score": score} for place, score in enumerate(scores)]
        return ScoreResult(**facts, raw=joined(parts, "data", entries, facts["tokens"]), scores=scores)

    def models(self, *, deadline: float | None = None) -> tuple[str, ...]:
        """The names that the service answers to."""
        body = parsed(self._ask("GET", "/v1/models", self._end(deadline)).body)
        entries = body.get("data") if isinstance(body, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) and isinstance(entry.get("id"), str) for entry in entries):
            raise MalformedAnswer(f"{self.base_url}/v1/models has no list of models.", remedy="Is base_url the reranker itself?")
        return tuple(entry["id"] for entry in entries)

    def version(self, *, deadline: float | None = None) -> str:
        """The version of the server, vLLM's."""
        body = parsed(self._ask("GET", "/version", self._end(deadline)).body)
        version = body.get("version") if isinstance(body, dict) else None
        if not isinstance(version, str):
            raise MalformedAnswer(f"{self.base_url}/version has no version.", remedy="Is base_url the reranker itself?")
        return version

    def health(self, *, deadline: float | None = None) -> Health:
        """Whether the service is healthy, and why not. Asks once; RerankError where it gives no answer."""
        reply = self.transport.exchange("GET", "/health", self._end(deadline) - time.monotonic())
        if reply.status in (200, 503):
            try:
                said = health_of(reply.status == 200, reply.body)
                return replace(said, reason=self._clean(said.reason))
            except MalformedAnswer:
                if reply.status == 200:
                    raise
        raise self.refusal(reply)

    def wait(self, seconds: float = 300.0, *, every: float = 1.0) -> Health:
        """Waits until the service is healthy. TimedOut with what it said last where it is not by then; other errors at once where waiting does not help."""
        end = time.monotonic() + _seconds("seconds", seconds)
        every = _seconds("every", every)
        last = "it was not asked"
        while (left := end - time.monotonic()) > 0:
            try:
                health = self.health(deadline=min(left, max(5.0, every)))
                if health.healthy:
                    return health
                last = health.reason or health.status
            except (TimedOut, Overloaded, Failed) as error:
                last = error.message
            except Unreachable as error:
                if not error.repeatable and error.status is None:
                    raise
                last = error.message
            time.sleep(max(0.0, min(every, end - time.monotonic())))
        raise TimedOut(f"{self.base_url} is not healthy after {seconds:.3g} s: {last}", remedy="Its log says more.")

    # -- one request

    def _end(self, deadline: float | None) -> float:
        return time.monotonic() + (self.timeout if deadline is None else _seconds("deadline", deadline))

    def _ask(
        self, method: str, path: str, end: float, body: bytes | None = None, headers: Mapping[str, str] | None = None, share: float = 0.0
    ) -> Reply:
        """A 200, by `end` (monotonic), repeated where that is safe and may help. `share` of the time left is the service's to answer in; 0 leaves it its own."""
        headers = {**({"Content-Type": "application/json"} if body is not None else {}), **(headers or {})}
        pause = PAUSE_SECONDS
        for repetition in range(self.retries + 1):
            left = end - time.monotonic()
            if left <= 0:
                raise TimedOut(f"{self.base_url}: the call's time was over before it was sent.", remedy="Allow more time (deadline=, timeout=).")
            if share:
                allowed = (left - min(MARGIN_SECONDS, MARGIN * left)) * share
                headers["X-Rerank-Deadline-Seconds"] = f"{min(DEADLINE_LIMIT_SECONDS, max(0.001, allowed)):.3f}"
            try:
                reply = self.transport.exchange(method, path, left, body, headers)
                if reply.status == 200:
                    return reply
                raise self.refusal(reply)
            except RerankError as error:
                wait = error.retry_after if isinstance(error, Overloaded) and error.retry_after is not None else pause
                wait *= random.uniform(1.0, 1.25)  # those refused at one moment do not all come back at one
                if not error.repeatable or repetition == self.retries or wait >= end - time.monotonic():
                    raise
                log.debug("%s after %.1f s, once more: %s", path, wait, error.message)
            time.sleep(wait)
            pause *= 2
        raise AssertionError("the last repetition returns or raises")

    def refusal(self, reply: Reply) -> RerankError:
        """What another status than 200 means."""
        status = reply.status
        said, param = self._said(reply)
        at, words = self.base_url, f" It says: {said if said.endswith(('.', '!', '?')) else said + '.'}" if said else ""
        around = f"Add {urlsplit(at).hostname} to NO_PROXY to go without it."
        if reply.proxy and not said and status in (403, 407, 502, 503, 504):
            return Unreachable(f"{at}: the proxy {reply.proxy} answered {status} in the service's place.", remedy=around, status=status)
        by = f" The answer came through the proxy {reply.proxy}. {around}" if reply.proxy else ""
        if status in (401, 403):
            remedy = "The key sent is none of the service's." if self.has_key else "Give the stack's apiKey as api_key= or in RERANK_API_KEY."
            return Unauthorised(f"{at}: the API key is {'wrong' if self.has_key else 'missing'} (status {status}).", remedy=remedy, status=status)
        if status == 404 and param == "model":
            return WrongModel(f"{at}: there is no model named {self.model!r}.", status=status)
        if status == 404:
            return Rejected(f"{at}: there is no such route there.{words}", remedy=f"Is base_url the reranker's own address?{by}", status=status)
        if status == 413 or (status == 400 and (param == "query" or "maximum context length" in said)):
            return TooLong(f"{at}: the request is too large.{words}", remedy="Shorten the query, the instruction or the document.", status=status)
        if status == 408:
            return TimedOut(f"{at}: the request did not arrive in time.{words}", remedy="Allow more time, or send less.", status=status)
        if status in (429, 503):
            after = _retry_after(reply.headers.get("retry-after"))
            remedy = "Try again later." if after is None else f"Try again after {after:.3g} s, send fewer or shorter documents, or allow more time."
            return Overloaded(f"{at}: cannot answer now (status {status}).{words}", retry_after=after, remedy=remedy, status=status)
        if status in (502, 504):
            return Unreachable(
                f"{at}: a gateway before the service answered {status}.", remedy=f"Is the service running behind it?{by}", status=status
            )
        if 300 <= status < 400:
            where = _without_user(self._clean(reply.headers.get("location", "")))
            return Rejected(
                f"{at}: leads on to {where or 'nowhere'} (status {status}), which is not followed, so that no key goes there.",
                remedy=f"If that is the service, take it as base_url.{by}", status=status,
            )  # fmt: skip
        if status >= 500:
            return Failed(f"{at}: the service failed (status {status}).{words}", remedy=f"Its log says why.{by}", status=status)
        return Rejected(f"{at}: refused the request (status {status}).{words}", remedy=f"Mend the request.{by}", status=status)

    def _said(self, reply: Reply) -> tuple[str, str]:
        """The words of an error in vLLM's shape, and the parameter that it is about."""
        try:
            body = json.loads(reply.body)
        except (ValueError, RecursionError):
            return "", ""
        error = body.get("error", body) if isinstance(body, dict) else {}
        if isinstance(error, str):
            return self._clean(error), ""
        if not isinstance(error, dict):
            return "", ""
        return self._clean(error.get("message") or error.get("detail") or ""), str(error.get("param") or "")

    def _clean(self, text: object) -> str:
        """Words of a server as a message may have them: on one line, not too long, without the key."""
        plain = " ".join("".join(one if one.isprintable() else " " for one in str(text)[:10_000]).split())
        if self._redact:
            plain = plain.replace(self._redact, "[api_key]")
        return plain if len(plain) <= 500 else plain[:500] + "..."


@dataclass(frozen=True)
class _Most:
    """What the service takes in one request, as its refusals taught; None is not known."""

    documents: int | None = None
    bytes: int | None = None


class _Call:
    """One call of the user's: checked, sent in as few requests as the service takes, and every answer believed or refused."""

    def __init__(
        self, client: RerankClient, path: str, query: str, documents: Iterable[str], fields: Mapping[str, Any], deadline: float | None,
        *, unscored_as: str | None = None, fresh: bool,
    ) -> None:  # fmt: skip
        self.begun = time.monotonic()
        self.client, self.path, self.most = client, path, client._most
        self.end = client._end(deadline)
        self.shared = deadline is not None
        if isinstance(documents, (str, bytes)):
            raise InvalidInput("documents is one text.", remedy="It must be a list of texts.")
        self.documents = list(documents)
        self.pieces = [_encoded(f"documents[{place}]", document) for place, document in enumerate(self.documents)]
        self.top_n = fields.get("top_n")
        given = {"query" if path == "/v1/rerank" else "queries": query, **fields, "model": client.model}
        if path == "/v1/rerank":
            given["return_documents"] = False
        _encoded("query", query)
        self.fields = {name: value for name, value in given.items() if value is not None and name != "top_n"}
        self.headers = {
            **({"X-Rerank-Unscored-As": unscored_as} if unscored_as is not None else {}),
            **({"Cache-Control": "no-cache"} if fresh else {}),
        }
        if unscored_as not in (None, "typical", "below"):
            raise InvalidInput(f"unscored_as is {unscored_as!r}.", remedy="It must be typical or below.")

    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def answered(self) -> list[Part]:
        """The parts, in the documents' order; of no documents none, and nothing is sent."""
        parts: list[Part] = []
        start = 0
        while start < len(self.documents):
            count = self._fitting(start)
            try:
                parts.append(self._part(start, count))
                start += count
            except TooLong as error:
                if count == 1 or error.status != 413:
                    raise
                self._learn(error, start, count)
            except WrongModel as error:
                raise self._with_names(error) from None
            except Unreachable as error:
                if count == 1 or not error.repeatable or error.status or self._size(start, count) <= LARGE_BODY:
                    raise
                self._learn(error, start, count)
        return parts

    def _part(self, start: int, count: int) -> Part:
        alone = count == len(self.documents)
        expected = min(self.top_n, count) if alone and self.top_n else count
        share = count / (len(self.documents) - start) if self.shared or not alone else 0.0
        body = self._body(start, count, self.top_n if alone else None)
        reply = self.client._ask("POST", self.path, self.end, body, self.headers, share)
        answer = parsed(reply.body)
        if self.path == "/v1/rerank":
            scores = scores_of(answer, "results", "relevance_score", count, expected)
            require_sorted(scores)
        else:
            scores = scores_of(answer, "data", "score", count, expected)
        return Part(start=start, count=count, scores=scores, headers=reply.headers, body=answer)

    def _body(self, start: int, count: int, top_n: int | None) -> bytes:
        head = {**self.fields, **({"top_n": top_n} if top_n else {})}
        try:
            begin = json.dumps(head, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise InvalidInput(
                f"A parameter of the call cannot be sent as JSON ({type(error).__name__}).", remedy="Give texts and whole numbers."
            ) from None
        return begin[:-1] + b', "documents": [' + b", ".join(self.pieces[start : start + count]) + b"]}"

    def _size(self, start: int, count: int) -> int:
        return sum(map(len, self.pieces[start : start + count])) + 2 * count

    def _fitting(self, start: int) -> int:
        """How many documents from `start` on go into a request, by what is known of the service; one at least."""
        count, size = 0, 0
        for piece in self.pieces[start : start + (self.most.documents or len(self.pieces))]:
            size += len(piece) + 2
            if self.most.bytes is not None and size > self.most.bytes and count:
                break
            count += 1
        return count

    def _learn(self, error: RerankError, start: int, count: int) -> None:
        """Of a refused request: what the service says it takes, if that is less than was sent, else half of what was sent."""
        found = re.search(r"may have ([0-9]{1,9})( MiB)?", error.message)
        said, mib = (int(found[1]), bool(found[2])) if found else (0, False)
        if found and not mib:
            self.most = replace(self.most, documents=said if 0 < said < count else count // 2)
        else:
            size = self._size(start, count)
            room = (said << 20) - len(self._body(0, 0, None))
            self.most = replace(self.most, bytes=room if mib and 0 < room < size else size // 2)
        if error.status == 413:  # a connection that broke off may have had another reason: that is for this call alone
            self.client._most = self.most

    def _with_names(self, error: WrongModel) -> WrongModel:
        try:
            names = self.client.models(deadline=max(0.001, min(5.0, self.end - time.monotonic())))
        except RerankError:
            names = ()
        remedy = (
            f"It has: {', '.join(self.client._clean(name) for name in names)}; model=None takes the first." if names else "GET /v1/models lists them."
        )
        return WrongModel(error.message, names=names, remedy=remedy, status=error.status)


def _address(given: str) -> str:
    """The base of all routes: without /v1, /v1/rerank or a slash at its end; InvalidInput where it is no address."""
    remedy = "Write it as http://HOST:PORT, e.g. http://127.0.0.1:8123."
    text = given.strip() if isinstance(given, str) else ""
    if not text:
        raise InvalidInput("base_url is empty.", remedy=remedy)
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:
        raise InvalidInput("base_url is no address.", remedy=remedy) from None
    if "@" in url.netloc:
        raise InvalidInput("base_url has a user or password in it.", remedy="Leave it out; give the service's key as api_key.")
    if url.scheme.lower() not in ("http", "https"):
        if "://" in text:
            raise InvalidInput(f"base_url begins with {url.scheme or 'no'}://.", remedy=remedy)
        raise InvalidInput("base_url has no scheme.", remedy=f"Write http:// or https:// before it: http://{text}" if "@" not in text else remedy)
    if not host or port == 0 or re.search(r"[\s\\]", text):
        raise InvalidInput("base_url is no address.", remedy=remedy)
    if url.query or url.fragment:
        raise InvalidInput("base_url has a ? or # in it.", remedy=remedy)
    path = url.path.rstrip("/")
    path = re.sub(r"(/v[12])?/+(rerank|score)$", "", path, flags=re.IGNORECASE).rstrip("/")
    path = re.sub(r"/v[12]$", "", path, flags=re.IGNORECASE).rstrip("/")
    return f"{url.scheme.lower()}://{url.netloc}{path}"


def _seconds(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e6:
        raise InvalidInput(f"{name} is {value!r}.", remedy="It must be a number of seconds above 0.")
    return float(value)


def _encoded(name: str, text: str) -> bytes:
    if not isinstance(text, str):
        raise InvalidInput(f"{name} is a {type(text).__name__}.", remedy="It must be a text.")
    try:
        return json.dumps(text, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidInput(
            f"{name} has half a character (a lone surrogate).", remedy="text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace') mends it."
        ) from None


def _retry_after(text: str | None) -> float | None:
    """Seconds; None where there are none, or a date, which no reranker sends."""
    return float(text) if text and re.fullmatch(r"[0-9]{1,6}", text.strip()) else None


def _without_user(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url)
