"""rerank/ against servers that stall, trickle, hang up, refuse or are no server: each call ends in its time, with an error that says what to do."""

import contextlib
import logging
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rerank
from rerank import InvalidInput, MalformedAnswer, Overloaded, Rejected, RerankClient, TimedOut, Unauthorised, Unreachable
from rerank.transport import is_near
from tests.support import faulty
from tests.support.engine import free_port
from tests.support.faulty import in_turn, reset, said, serving, silent, trickling, wire

KEY = "s3cret-key-0815"
LONG = 20.0  # what no call here may take, however busy this machine is
OK = {"model": "m", "usage": {"total_tokens": 9}, "results": [{"index": 0, "relevance_score": 0.5}]}
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, "requests_ca_bundle", "curl_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True)
def no_key_is_in_any_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert KEY not in caplog.text


def client(url: str, **options: Any) -> RerankClient:
    given: dict[str, Any] = {"api_key": KEY, "retries": 0} | options
    return RerankClient(url, **given)


def ask(url: str, **options: Any) -> rerank.RerankResult:
    with client(url, **options) as made:
        return made.rerank("secret question", ["secret document"])


def refused(url: str, kind: type[rerank.RerankError], match: str, **options: Any) -> rerank.RerankError:
    """The error of a call, which must be of this kind, end soon, have a remedy, and none of the user's texts."""
    begun = time.monotonic()
    with pytest.raises(kind, match=match) as caught:
        ask(url, **options)
    assert time.monotonic() - begun < LONG
    assert caught.value.remedy
    shown = f"{caught.value} {caught.value!r}"
    assert KEY not in shown
    assert "secret " not in shown
    return caught.value


def exchanges() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "rerank-exchange"]


def wait_for_no_exchange() -> None:
    for thread in exchanges():
        thread.join(LONG)
    assert exchanges() == []


# -- time


@pytest.mark.parametrize(
    ("behaviour", "match"),
    [
        pytest.param(silent, "no answer came within 1 s", id="accepts and says nothing"),
        pytest.param(trickling(b"HTTP/1.1 200 OK\r\n" + b"x-more: y\r\n" * 1000), "no answer came within 1 s", id="trickles its headers"),
        pytest.param(trickling(wire(OK) + b" " * 1000), "(no answer came|not whole) within 1 s", id="trickles all"),
        pytest.param(
            lambda server, asked: (asked.connection.sendall(wire(b" " * 5000)[:-4950]), trickling(b" " * 4000)(server, asked)),
            "the answer was not whole within 1 s",
            id="trickles its body",
        ),
        pytest.param(
            lambda server, asked: (asked.connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n"), server.over.wait()),
            "not whole within 1 s",
            id="never ends",
        ),
    ],
)
def test_a_server_that_stalls_or_trickles_holds_no_call_longer_than_its_time_and_leaves_no_thread(behaviour: faulty.Behaviour, match: str) -> None:
    with serving(behaviour) as server:
        refused(server.url, TimedOut, match, timeout=1)
        wait_for_no_exchange()


def test_a_deadline_takes_the_timeouts_place_and_repetitions_share_it() -> None:
    with serving(silent) as server, client(server.url, timeout=1000, retries=5) as made, pytest.raises(TimedOut, match=r"within (1|0.9[0-9]*) s"):
        made.score("q", ["d"], deadline=1)
    assert len(server.asked) == 1


def test_a_host_that_answers_no_connection_is_told_within_the_time() -> None:
    with socket.socket() as full:  # a listener whose queue is full drops what comes
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        held = [socket.socket() for _ in range(8)]
        for one in held:
            one.setblocking(False)
            one.connect_ex(address)
        refused("http://{}:{}".format(*address), TimedOut, "no connection was made within 0.4 s", timeout=0.4)
        for one in held:
            one.close()


def test_a_slow_name_lookup_is_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait() and [])
    try:
        refused("http://slow.example", TimedOut, "no connection was made within 0.3 s", timeout=0.3)
    finally:
        over.set()
    wait_for_no_exchange()


def test_the_service_is_told_a_little_less_than_the_time_that_is_left() -> None:
    with serving(said(OK)) as server, client(server.url) as made:
        made.rerank("q", ["d"])
        made.rerank("q", ["d"], deadline=100)
        made.rerank("q", ["d"], deadline=0.9, unscored_as="below", fresh=True)
        made.rerank("q", ["d"], deadline=99_999)
    told = [asked.headers.get("x-rerank-deadline-seconds") for asked in server.asked]
    assert told[0] is None
    assert 90 < float(told[1] or 0) <= 99.5
    assert 0 < float(told[2] or 0) <= 0.81
    assert told[3] == "3600.000"
    assert (server.asked[2].headers["x-rerank-unscored-as"], server.asked[2].headers["cache-control"]) == ("below", "no-cache")


def test_the_parts_of_a_call_share_its_deadline_by_their_documents() -> None:
    def answer(_: faulty.Faulty, asked: faulty.Asked) -> bool:
        count = len(asked.json["documents"])
        if count > 10:
            error = {"error": {"message": f"The request has {count} documents and may have 10", "param": "documents", "code": 413}}
            asked.connection.sendall(wire(error, "413 Request Entity Too Large"))
        else:
            entries = [{"index": place, "relevance_score": 0.5} for place in range(count)]
            asked.connection.sendall(wire({"results": entries}, x_rerank_cached="2", x_rerank_scored=str(count - 1), x_rerank_unscored="0"))
        return True

    with serving(answer) as server, client(server.url) as made:
        found = made.rerank("q", ["d"] * 30, deadline=1000)
    allowed = [float(asked.headers["x-rerank-deadline-seconds"]) for asked in server.asked]
    assert [len(asked.json["documents"]) for asked in server.asked] == [30, 10, 10, 10]
    assert all(low < seconds < high for seconds, (low, high) in zip(allowed, [(900, 1000), (300, 334), (450, 500), (900, 1000)], strict=True))
    assert (found.cached, found.scored, found.unscored) == (6, 27, (0, 10, 20))
    # of equal scores those of the model come first, then the caller's order
    assert [item.index for item in found.items] == [place for place in range(30) if place % 10] + [0, 10, 20]


def test_a_server_that_refuses_every_size_is_given_up_at_one_document() -> None:
    with serving(said(b"<html>413</html>", "413 Request Entity Too Large")) as server, client(server.url) as made, pytest.raises(rerank.TooLong):
        made.rerank("q", ["d"] * 1000)
    assert len(server.asked) <= 12


# -- not there


def half_then_reset(server: faulty.Faulty, asked: faulty.Asked) -> None:
    asked.connection.sendall(wire(OK)[:-10])
    reset(server, asked)


def test_a_port_where_nothing_listens_is_told_as_refused() -> None:
    refused(f"http://127.0.0.1:{free_port()}", Unreachable, "connection was refused. Is the service running")


def test_a_name_that_does_not_exist_is_told_with_where_containers_names_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    refused("http://ragflow-vllm-reranker:8000", Unreachable, "no host named ragflow-vllm-reranker.*Docker network")


def test_what_speaks_no_http_is_told() -> None:
    with serving(lambda _, asked: asked.connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")) as server:
        refused(server.url, MalformedAnswer, "speaks no HTTP")


@pytest.mark.parametrize(
    ("behaviour", "kind", "match"),
    [
        pytest.param(reset, Unreachable, "hung up before an answer", id="reset"),
        pytest.param(lambda *_: None, Unreachable, "hung up before an answer", id="closed"),
        pytest.param(lambda _, asked: asked.connection.sendall(wire(OK)[:-10]), MalformedAnswer, "broke off", id="half a body"),
        pytest.param(lambda _, asked: asked.connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-le"), MalformedAnswer, "empty", id="half of the headers"),
        pytest.param(
            lambda _, asked: asked.connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffff\r\nabc"),
            MalformedAnswer,
            "broke off",
            id="half a chunk",
        ),
        pytest.param(
            half_then_reset, MalformedAnswer, "broke off|hung up", id="reset in its body"
        ),
    ],
)  # fmt: skip
def test_a_server_that_hangs_up_is_told_by_how_far_it_came(behaviour: faulty.Behaviour, kind: type[rerank.RerankError], match: str) -> None:
    with serving(behaviour) as server:
        refused(server.url, kind, match)
    assert len(server.asked) == 1


def test_an_answer_without_end_is_given_up_at_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rerank.transport.ANSWER_BYTES", 1 << 20)

    def endless(server: faulty.Faulty, asked: faulty.Asked) -> None:
        asked.connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not server.over.is_set():
            asked.connection.sendall(b" " * 65536)

    with serving(endless) as server:
        refused(server.url, MalformedAnswer, "larger than 1 MiB")


# -- repeated or not


def overloaded(seconds: str) -> faulty.Behaviour:
    return said({"error": {"message": "busy; ask again later."}}, "503 Service Unavailable", retry_after=seconds)


@pytest.mark.parametrize("first", [reset, overloaded("0"), said(b"", "429 Too Many Requests", retry_after="0")])
def test_what_could_not_be_delivered_or_may_be_asked_again_is_asked_again(first: faulty.Behaviour) -> None:
    with serving(in_turn(first, first, said(OK))) as server:
        assert ask(server.url, retries=2).items[0].score == 0.5
    assert len(server.asked) == 3


def test_a_service_that_just_starts_is_reached_by_a_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    with contextlib.ExitStack() as stack:

        def start(_: float) -> None:
            monkeypatch.setattr(socket, "create_server", lambda *_, **options: real(("127.0.0.1", port), **options))
            if not started:
                started.append(stack.enter_context(serving(said(OK))))

        real, started = socket.create_server, list[faulty.Faulty]()
        monkeypatch.setattr("rerank.client.time.sleep", start)
        assert ask(f"http://127.0.0.1:{port}", retries=1).items[0].index == 0


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (said(b"", "503 Service Unavailable"), Overloaded),
        (overloaded("3600"), Overloaded),
        (overloaded("Wed, 21 Oct 2026 07:28:00 GMT"), Overloaded),
        (said({"error": {"message": "no"}}, "400 Bad Request"), Rejected),
        (said(b"", "500 Internal Server Error"), rerank.Failed),
        (said(b"", "502 Bad Gateway"), Unreachable),
        (said(b"{}"), MalformedAnswer),
    ],
)
def test_nothing_else_is_asked_twice(behaviour: faulty.Behaviour, kind: type[rerank.RerankError]) -> None:
    with serving(behaviour) as server:
        refused(server.url, kind, ".", retries=5)
    assert len(server.asked) == 1


def test_repetitions_end_and_the_last_error_has_the_seconds_to_wait() -> None:
    with serving(overloaded("0")) as server:
        error = refused(server.url, Overloaded, "status 503.*busy; ask again later.*Try again after 0 s", retries=3)
    assert isinstance(error, Overloaded)
    assert (error.retry_after, error.status, len(server.asked)) == (0, 503, 4)


# -- answers that are none

LIES = [
    ({"results": [{"index": 1, "relevance_score": 0.5}]}, "an index that is none of the 1 documents"),
    ({"results": [{"index": -1, "relevance_score": 0.5}]}, "an index that is none"),
    ({"results": [{"index": True, "relevance_score": 0.5}]}, "an index that is none"),
    ({"results": [{"index": "0", "relevance_score": 0.5}]}, "an index that is none"),
    ({"results": [{"relevance_score": 0.5}]}, "an index that is none"),
    ({"results": [5]}, "an index that is none"),
    ({"results": []}, "0 results where 1 were asked for"),
    ({"results": [{"index": 0, "relevance_score": 0.5}] * 2}, "2 results where 1 were asked for"),
    ({"results": [{"index": 0, "relevance_score": "0.5"}]}, "a score that is no number"),
    ({"results": [{"index": 0, "relevance_score": None}]}, "a score that is no number"),
    ({"results": [{"index": 0, "relevance_score": True}]}, "a score that is no number"),
    ({"results": [{"index": 0, "relevance_score": 10**400}]}, "a score that is no number"),
    ({"results": [{"index": 0}]}, "a score that is no number"),
    (b'{"results": [{"index": 0, "relevance_score": NaN}]}', "a score that is no number"),
    (b'{"results": [{"index": 0, "relevance_score": 1e999}]}', "a score that is no number"),
    ({"results": {"index": 0}}, "no list of results"),
    ({"data": []}, "no list of results"),
    ([], "no list of results"),
    (b"[" * 100_000, "no JSON"),
    (b"\xff\xfe{", "no JSON"),
    (b"", "empty"),
    (b"  <!DOCTYPE html><html>Log in</html>", "a web page.*a proxy or a login page"),
]


@pytest.mark.parametrize(("body", "match"), LIES, ids=[f"{number}" for number in range(len(LIES))])
def test_an_answer_that_cannot_be_right_gives_no_scores(body: object, match: str) -> None:
    with serving(said(body)) as server:
        refused(server.url, MalformedAnswer, match)


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ([(0, 0.9), (0, 0.8), (1, 0.1)], "the index 0 twice"),
        ([(0, 0.1), (1, 0.8), (2, 0.1)], "not sorted"),
        ([(0, 0.9), (1, 0.8)], "2 results where 3"),
    ],
)
def test_an_answer_that_doubles_misses_or_does_not_sort_gives_no_scores(entries: list[tuple[int, float]], match: str) -> None:
    body = {"results": [{"index": place, "relevance_score": score} for place, score in entries]}
    with serving(said(body)) as server, client(server.url) as made, pytest.raises(MalformedAnswer, match=match):
        made.rerank("q", ["a", "b", "c"])


@pytest.mark.parametrize(
    "headers",
    [
        {"x_rerank_documents": "2"},
        {"x_rerank_scored": "many"},
        {"x_rerank_cached": "-1"},
        {"x_rerank_cut": "1"},
        {"x_rerank_cut": "0-99999999"},
        {"x_rerank_unscored": "0,0,0"},
        {"x_rerank_unscored": "a"},
    ],
)
def test_a_header_that_contradicts_the_call_gives_no_scores(headers: dict[str, str]) -> None:
    with serving(said(OK, **headers)) as server:
        refused(server.url, MalformedAnswer, "cannot be right.*x-rerank|cannot be right.*2 documents counted")


def test_headers_are_fields_and_a_list_that_was_shortened_says_so() -> None:
    body = {"results": [{"index": place, "relevance_score": 1 - place / 10} for place in range(9)]}
    told = {
        "x_rerank_documents": "9", "x_rerank_scored": "6", "x_rerank_cached": "1", "x_rerank_cut": "0,2-3,...", "x_rerank_kept_tokens": "192",
        "x_rerank_query_kept_tokens": "50", "x_rerank_unscored": "6-8", "x_rerank_unscored_as": "typical", "x_rerank_unhealthy": "the golden set failed",
    }  # fmt: skip
    with serving(said(body, **told)) as server, client(server.url) as made:
        found = made.rerank("q", ["d"] * 9)
    assert (found.scored, found.cached, found.cut, found.kept_tokens, found.query_kept_tokens) == (6, 1, (0, 2, 3), 192, 50)
    assert (found.unscored, found.unscored_as, found.unhealthy, found.shortened) == ((6, 7, 8), "typical", "the golden set failed", True)


def test_a_plain_vllm_that_says_nothing_in_headers_is_understood() -> None:
    with serving(said(OK)) as server:
        found = ask(server.url)
    assert (found.documents, found.scored, found.cached, found.cut, found.unscored) == (1, None, None, (), ())


def test_a_compressed_answer_is_refused_as_it_was_not_asked_for() -> None:
    with serving(said(b"\x1f\x8b" + b"x" * 50, content_encoding="gzip")) as server:
        refused(server.url, MalformedAnswer, "compressed")
    assert server.asked[0].headers["accept-encoding"] == "identity"


# -- refusals


def test_a_redirect_is_not_followed_and_the_key_is_not_taken_along() -> None:
    with (
        serving(said(OK)) as other,
        serving(said(b"", "307 Temporary Redirect", location=f"{other.url.replace('//', '//u:p@')}/v1/rerank")) as server,
    ):
        error = refused(server.url, Rejected, f"leads on to {other.url}/v1/rerank .*take it as base_url")
        assert "u:p" not in str(error)
        assert other.connections == 0
        assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_servers_words_are_one_line_of_a_length_without_the_key() -> None:
    message = f"you sent\r\n\x1b[31m{KEY} " + "x" * 5000
    with serving(said({"error": {"message": message}}, "422 Unprocessable Entity")) as server:
        error = refused(server.url, Rejected, r"you sent \[31m\[api_key\] x+\.\.\.")
    assert len(str(error)) < 700


@pytest.mark.parametrize(("status", "kind"), [("401 Unauthorized", Unauthorised), ("403 Forbidden", Unauthorised)])
def test_a_key_that_a_gateway_refuses_is_told_as_such(status: str, kind: type[rerank.RerankError]) -> None:
    with serving(said(b"<html>", status)) as server:
        refused(server.url, kind, "is wrong")


def test_no_netrc_takes_the_keys_place_and_no_cookie_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serving(said(OK, set_cookie="a=b; Path=/")) as server, client(server.url) as made, client(server.url, api_key=None) as without:
        for one in (made, made, without):
            one.rerank("q", ["d"])
    assert [asked.headers.get("authorization") for asked in server.asked] == [f"Bearer {KEY}", f"Bearer {KEY}", None]
    assert all("cookie" not in asked.headers for asked in server.asked)
    assert server.connections == 2


# -- proxies


@pytest.mark.parametrize(
    ("host", "near"),
    [("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("a.localhost", True), ("ragflow-vllm-reranker", True),
     ("host.docker.internal", True), ("10.0.0.5", False), ("reranker.example.com", False), ("192.168.1.7", False)],
)  # fmt: skip
def test_this_machine_and_containers_names_are_near(host: str, near: bool) -> None:
    assert is_near(host) == near


def test_this_machine_is_asked_past_every_proxy_and_others_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(said(OK)) as proxy, serving(said(OK)) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        ask(server.url)
        assert proxy.connections == 0
        ask("http://reranker.example.com:8123")
        assert proxy.asked[0].line.startswith("POST http://reranker.example.com:8123/v1/rerank ")
        monkeypatch.setenv("no_proxy", "example.com")
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", int(server.url.rpartition(":")[2])))]
        )
        ask("http://reranker.example.com:8123")
        assert len(server.asked) == 2


def test_a_proxys_own_page_is_told_as_the_proxys_with_the_variable_that_goes_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(said(b"<html>blocked</html>", "403 Forbidden")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//user:pr0xypass@"))
        error = refused(
            "http://reranker.example.com",
            Unreachable,
            "the proxy 127.0.0.1:.* answered 403 in the service's place. Add reranker.example.com to NO_PROXY",
        )
        assert "pr0xypass" not in str(error)


def test_a_proxy_that_is_not_there_or_opens_no_tunnel_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    refused("http://reranker.example.com", Unreachable, "the proxy that the environment names.*NO_PROXY")
    with serving(said(b"", "403 Forbidden")) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        refused("https://reranker.example.com", Unreachable, "the proxy that the environment names.*NO_PROXY")
    with serving(silent) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        refused("https://reranker.example.com", TimedOut, "no connection was made", timeout=0.3)
    wait_for_no_exchange()


# -- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    names = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-out", names[0], "-keyout", names[1]],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return names


@pytest.fixture
def tls(certificate: tuple[str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def test_a_certificate_of_a_companys_own_ca_is_trusted_where_it_is_named(
    tls: ssl.SSLContext, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(said(OK), tls) as server:
        refused(server.url, Unreachable, "certificate is not trusted.*REQUESTS_CA_BUNDLE or ca_bundle")
        assert ask(server.url, ca_bundle=certificate[0]).items[0].score == 0.5
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate[0])
        assert ask(server.url).items[0].score == 0.5
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
        refused(server.url, InvalidInput, "no such file as ca_bundle or REQUESTS_CA_BUNDLE")


def test_https_where_http_is_spoken_and_the_other_way_round_are_told(tls: ssl.SSLContext) -> None:
    with serving(said(OK)) as server:
        refused(server.url.replace("http", "https"), Unreachable, "does not speak TLS. Write http://", timeout=5)
    with serving(said(OK), tls) as server:
        refused(server.url.replace("https", "http"), rerank.RerankError, "hung up before an answer|speaks no HTTP")


def test_a_tls_server_that_trickles_holds_no_call(tls: ssl.SSLContext, certificate: tuple[str, str]) -> None:
    with serving(trickling(wire(OK)), tls) as server:
        refused(server.url, TimedOut, "within 0.4 s", timeout=0.4, ca_bundle=certificate[0])
        wait_for_no_exchange()
    with serving(silent) as server:  # no handshake
        refused(server.url.replace("http", "https"), TimedOut, "no connection was made within 0.4 s", timeout=0.4)
        wait_for_no_exchange()


# -- health, threads


@pytest.mark.parametrize(
    ("behaviour", "healthy", "reason"),
    [
        (said({"status": "starting", "reason": "not yet\nproven"}, "503 Service Unavailable"), False, "not yet proven"),
        (said({"status": "healthy", "skipped": ["a"]}), True, ""),
        (said(b""), True, ""),
    ],
)
def test_health_is_what_the_service_says_of_itself(behaviour: faulty.Behaviour, healthy: bool, reason: str) -> None:
    with serving(behaviour) as server, client(server.url) as made:
        found = made.health()
    assert (found.healthy, found.reason) == (healthy, reason)


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (said(b"<html>welcome"), MalformedAnswer),
        (said(b"[]"), MalformedAnswer),
        (said(b"<html>", "503 x"), Overloaded),
        (said({}, "404 x"), Rejected),
    ],
)
def test_a_page_that_is_no_health_is_not_taken_for_it(behaviour: faulty.Behaviour, kind: type[rerank.RerankError]) -> None:
    with serving(behaviour) as server, client(server.url) as made, pytest.raises(kind):
        made.health()


def test_wait_returns_once_it_is_healthy_and_says_what_it_said_last_where_it_never_is() -> None:
    starting = said({"status": "starting", "reason": "The golden set is scored."}, "503 Service Unavailable")
    with serving(in_turn(reset, starting, said({"status": "healthy"}))) as server, client(server.url) as made:
        assert made.wait(LONG, every=0.01).healthy
    with serving(starting) as server, client(server.url) as made, pytest.raises(TimedOut, match=r"after 2 s: The golden set is scored\."):
        made.wait(2, every=0.5)
    with serving(said(b"<html>welcome")) as server, client(server.url) as made, pytest.raises(MalformedAnswer):
        made.wait(1000)


def test_sixty_four_threads_are_all_told_by_their_deadline_while_nobody_answers() -> None:
    told: list[str] = []

    def call() -> None:
        try:
            made.rerank("q", ["d"], deadline=1)
        except TimedOut:
            told.append("late")

    begun = time.monotonic()
    with serving(silent) as server, client(server.url) as made:
        callers = [threading.Thread(target=call) for _ in range(64)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(LONG)
        assert told == ["late"] * 64
        wait_for_no_exchange()
    assert time.monotonic() - begun < LONG
