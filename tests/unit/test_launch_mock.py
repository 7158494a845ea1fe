"""The mock served by uvicorn: what a client needs of HTTP/1.1, its arguments and its end. What it answers is in test_contract.py."""

import asyncio
import contextlib
import dataclasses
import functools
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from serving import dials
from serving.asgi import Message, Receive, Send
from serving.engines.mock import MockEngine
from serving.health import probe
from serving.launch import mock
from serving.launch.mock import MockOptions
from serving.web.service import Service
from tests.support import asgi
from tests.support.contract import prometheus
from tests.support.engine import wait_until
from tests.support.options import service_options

ROOT = Path(__file__).parents[2]
OPTIONS = service_options(max_body_mib=2)
LIMIT = OPTIONS.max_body_mib << 20
CALL = json.dumps({"query": "capital of China", "documents": ["Apples are red.", "The capital of China is Beijing."]}).encode()
HEAD = b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


eventually = functools.partial(wait_until, seconds=10, every=0.005)


class Wire:
    """A connection on which a test says exactly what it wants."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, 10)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, *, bare: bool = False) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer; status 0 where the server hung up. `bare`: without a body."""
        line = self.file.readline()
        if not line:
            return 0, {}, b""
        headers = {}
        while (header := self.file.readline().strip()) and header:
            name, _, value = header.decode().partition(":")
            headers[name.lower()] = value.strip()
        status = int(line.split()[1])
        if bare or status < 200:
            return status, headers, b""
        if "content-length" in headers:
            return status, headers, self.file.read(int(headers["content-length"]))
        if headers.get("transfer-encoding") == "chunked":
            return status, headers, b"".join(self._chunks())
        body = b""
        with contextlib.suppress(ConnectionResetError):  # where the server has not read all that was sent, that is its end
            while more := self.file.read1():
                body += more
        return status, headers, body

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.file.readline(), 16):
            yield self.file.read(size)
            self.file.readline()
        self.file.readline()


@pytest.fixture(scope="module")
def service() -> Service:
    return mock.build(OPTIONS)


@pytest.fixture(scope="module")
def address(service: Service) -> Iterator[tuple[str, int]]:
    with asgi.running(service) as found:
        eventually(lambda: service.vitals.proven)
        yield found


@pytest.fixture
def wire(address: tuple[str, int]) -> Iterator[Wire]:
    with Wire(address) as made:
        yield made


def test_a_stall_of_the_machine_cuts_no_document() -> None:
    service = mock.build(OPTIONS)
    service.scheduler.speed.learn(10, 1.0)
    assert service.scheduler.speed.tokens_per_second * OPTIONS.deadline_seconds > 200 * OPTIONS.max_documents


# -- HTTP/1.1


def test_one_connection_carries_many_requests_also_when_they_come_at_once(wire: Wire) -> None:
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(CALL) + CALL
    for _ in range(3):
        wire.say(request)
        status, headers, body = wire.answer()
        assert (status, headers.get("connection")) == (200, None)
        assert json.loads(body)["results"][0]["index"] == 1
    wire.say(request + b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n" + request)
    assert [wire.answer()[0] for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize("request_", [b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"GET /health HTTP/1.0\r\n\r\n"])
def test_the_client_may_ask_to_close_and_an_old_one_need_not(wire: Wire, request_: bytes) -> None:
    wire.say(request_)
    status, headers, _ = wire.answer()
    assert (status, headers["connection"], wire.answer()[0]) == (200, "close", 0)


@pytest.mark.parametrize("pieces", [[CALL], [CALL[:1], CALL[1:40], CALL[40:]], [bytes([byte]) for byte in CALL]])
def test_a_body_in_chunks_is_one_body(wire: Wire, pieces: Sequence[bytes]) -> None:
    chunks = b"".join(b"%X;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    for _ in range(2):
        wire.say(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nTrailer: x\r\n\r\n")
        status, _, body = wire.answer()
        assert (status, json.loads(body)["results"][0]["index"]) == (200, 1)


def test_a_client_that_waits_to_be_told_sends_its_body_when_it_is_wanted(wire: Wire) -> None:
    wire.say(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(CALL))
    assert wire.answer()[0] == 100
    wire.say(CALL)
    assert wire.answer()[0] == 200
    wire.say(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (LIMIT + 1))
    assert wire.answer()[0] == 413


def test_an_answer_to_head_has_no_body(wire: Wire) -> None:
    wire.say(b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n")
    status, headers, _ = wire.answer(bare=True)
    assert status == 405
    assert int(headers["content-length"]) > 0
    wire.say(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert wire.answer()[0] == 200


def test_the_body_of_a_refused_request_is_not_read_as_a_request(wire: Wire) -> None:
    inner = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
    wire.say(b"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(inner) + inner)
    assert wire.answer()[0] == 404
    wire.say(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    status, _, body = wire.answer()
    assert (status, json.loads(body).keys()) == (200, {"version"})
    assert wire.answer()[0] == 0


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_beyond_the_limit_is_refused_while_it_comes_and_the_client_still_reads_why(wire: Wire, framing: str) -> None:
    size = 20 * LIMIT
    piece = b"x" * (64 << 10)
    wire.say(HEAD + (b"Content-Length: %d\r\n\r\n" % size if framing == "length" else b"Transfer-Encoding: chunked\r\n\r\n"))
    # The server hangs up before it has read all: a client that hears of it while it still sends looks whether there is an answer.
    with contextlib.suppress(ConnectionError):
        for _ in range(size // len(piece)):
            wire.say(piece if framing == "length" else b"%x\r\n%b\r\n" % (len(piece), piece))
    status, headers, body = wire.answer()
    assert (status, headers["connection"], json.loads(body)["error"]["code"]) == (413, "close", 413)


GET = b"GET /health HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /he alth HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        GET + b"no colon\r\n\r\n",
        GET + b"Name : x\r\n\r\n",
        GET + b"X: \x00\r\n\r\n",
        b"GET /" + b"a" * 200_000,
        GET + b"X: y\r\n" * 20_000,
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 1e3\r\n\r\n",
        HEAD + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n",
        HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
        HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
    ],
    ids=lambda given: ascii(given[-40:]),
)
def test_what_is_no_http_gets_an_error_and_an_end_and_the_server_goes_on(wire: Wire, address: tuple[str, int], data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        wire.say(data)
    status, headers, _ = wire.answer()
    assert 400 <= status < 500
    assert headers["connection"] == "close"
    with contextlib.suppress(ConnectionError):
        assert wire.answer()[0] == 0
    assert probe.check(address) == ""


@pytest.mark.parametrize("data", [b"", b"POST", HEAD, HEAD + b"Content-Length: 100\r\n\r\n{", HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"])
def test_a_client_that_leaves_in_the_middle_does_no_harm(service: Service, address: tuple[str, int], data: bytes) -> None:
    with Wire(address) as wire:
        wire.say(data)
    assert probe.check(address) == ""
    eventually(lambda: service.calls == 0)


class Slow(MockEngine):
    """Scores nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__(2048)
        self.begun, self.ended, self.go = threading.Event(), threading.Event(), threading.Event()

    async def score(self, prompts: Sequence[object]) -> list[float]:
        self.begun.set()
        try:
            while not self.go.is_set():
                await asyncio.sleep(0.005)
        finally:
            self.ended.set()
        return await super().score(prompts)


@pytest.fixture
def slow(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    """The engine of the service that is served."""
    made = Slow()
    monkeypatch.setattr(service.scheduler, "engine", made)
    yield made
    made.go.set()


@pytest.fixture
def own() -> tuple[Service, Slow]:
    """A service of the test's own, with its slow engine."""
    made, engine = mock.build(OPTIONS), Slow()
    made.scheduler.engine = engine
    made.vitals.proven, made.vitals.reason = True, ""  # its golden set would wait as well
    return made, engine


def test_the_work_stops_when_the_client_hangs_up(own: tuple[Service, Slow]) -> None:
    service, slow = own
    with asgi.running(service) as address:
        with Wire(address) as wire:
            wire.say(HEAD + b"Content-Length: %d\r\n\r\n" % len(CALL) + CALL)
            assert slow.begun.wait(10)
            assert not slow.ended.is_set()
        assert slow.ended.wait(10)
        eventually(lambda: service.calls == 0)
        assert prometheus(service.metrics.text())["reranker_hangups_total", ()] == 1


def test_a_client_that_sends_the_next_request_early_has_not_hung_up(slow: Slow, wire: Wire) -> None:
    wire.say(HEAD + b"Cache-Control: no-cache\r\nContent-Length: %d\r\n\r\n" % len(CALL) + CALL + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert slow.begun.wait(10)
    slow.go.set()
    assert [wire.answer()[0], wire.answer()[0]] == [200, 200]


def test_an_app_that_fails_is_500_and_the_server_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def failing(scope: Message, receive: Receive, send: Send) -> None:
        raise RuntimeError("on purpose")

    with asgi.running(failing) as address:
        for _ in range(2):
            with Wire(address) as wire:
                wire.say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (wire.answer()[0], wire.answer()[0]) == (500, 0)
    assert "on purpose" in caplog.text


# -- the end


def test_a_stop_lets_a_running_answer_end(own: tuple[Service, Slow]) -> None:
    service, slow = own
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(contextlib.ExitStack())
        wire = stack.enter_context(Wire(server.enter_context(asgi.running(service))))
        wire.say(HEAD + b"Content-Length: %d\r\n\r\n" % len(CALL) + CALL)
        assert slow.begun.wait(10)
        threading.Timer(0.1, slow.go.set).start()
        server.close()  # waits for the server's end
        assert (wire.answer()[0], wire.answer()[0]) == (200, 0)


def test_a_stop_does_not_wait_for_ever(own: tuple[Service, Slow], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mock, "STOP_SECONDS", 0.05)
    service, slow = own
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(contextlib.ExitStack())
        wire = stack.enter_context(Wire(server.enter_context(asgi.running(service))))
        wire.say(HEAD + b"Content-Length: %d\r\n\r\n" % len(CALL) + CALL)
        assert slow.begun.wait(10)
        server.close()
        with contextlib.suppress(ConnectionError):
            assert wire.answer()[0] in (0, 500)
    assert slow.ended.is_set()


# -- the command


def argv(**changes: Any) -> list[str]:
    """The command's arguments: a free port on loopback."""
    return dials.argv(dials.take(MockOptions, OPTIONS, **{"host": "127.0.0.1", "port": 0, **changes}))


def start(*arguments: str) -> "subprocess.Popen[str]":
    """The mock as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "serving", "mock", *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@contextlib.contextmanager
def started(**changes: Any) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any], tuple[str, int]]]:
    """The process, what it said first, and its address, once it answers there."""
    process = start(*argv(**changes))
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        host, port = said["listening"].split(":")
        eventually(lambda: probe.check((host, int(port))) == "")
        yield process, said, (host, int(port))
    finally:
        process.kill()
        process.communicate(timeout=15)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_mock_with_status_0_although_a_client_is_connected(number: signal.Signals) -> None:
    with started() as (process, _, address), Wire(address):
        process.send_signal(number)
        out, err = process.communicate(timeout=mock.STOP_SECONDS - 2)  # there is no answer to wait for
        assert process.returncode == 0
        assert json.loads(out.splitlines()[-1]) == {"mock": "stopped"}
        assert err == ""


# The signal comes the moment it has said where it listens.
EARLY = """
import builtins, os, signal, sys
from serving.launch import mock
say, number = print, signal.Signals[sys.argv[1]]
def say_and_be_told(*words, **more):
    builtins.print = say
    say(*words, **more)
    os.kill(os.getpid(), number)
builtins.print = say_and_be_told
sys.exit(mock.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_right_after_it_said_that_it_listens_stops_it_as_well(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", EARLY, number.name, *argv()], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        out, err = process.communicate(timeout=15)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "")
    assert json.loads(out.splitlines()[-1]) == {"mock": "stopped"}


def test_its_answers_do_not_wait_for_an_acknowledgement_of_their_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class Stub:
        should_exit = False

        def run(self, sockets: Sequence[socket.socket]) -> None:
            seen.extend(each.proto == socket.IPPROTO_TCP or each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in sockets)
            for each in sockets:
                each.close()

    monkeypatch.setattr(mock, "server", lambda app: Stub())
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert mock.main(argv()) == 0
    assert [bool(each) for each in seen] == [True]


def test_it_is_healthy_right_after_its_start_though_it_bears_a_models_name_and_says_that_its_bands_were_left_out() -> None:
    with started(served_model_names=("qwen3-reranker-0.6b",), golden_check=True) as (_, said, address):
        assert said["mock"] == ["qwen3-reranker-0.6b"]
        with Wire(address) as wire:
            wire.say(GET + b"\r\n")
            status, _, body = wire.answer()
        assert (status, json.loads(body)["status"]) == (200, "healthy")
        assert any("bands" in sentence for sentence in json.loads(body)["skipped"])


def test_it_reads_its_keys_from_the_file_and_shows_none(tmp_path: Path) -> None:
    (tmp_path / "api_keys").write_text("s3cret-key\n")
    with started(api_key_file=str(tmp_path / "api_keys")) as (process, said, address):
        assert said["key"] is True
        with Wire(address) as wire:
            models = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n"
            wire.say(models + b"Authorization: Bearer s3cret-key\r\n\r\n" + models + b"\r\n")
            assert [wire.answer()[0], wire.answer()[0]] == [200, 403]
        process.terminate()
        out, err = process.communicate(timeout=15)
    assert "s3cret" not in json.dumps(said) + out + err


def test_a_missing_key_file_ends_it_in_one_sentence() -> None:
    process = start(*argv(api_key_file="/nowhere/keys"))
    out, err = process.communicate(timeout=15)
    assert (process.returncode, out) == (1, "")
    assert "The API key file /nowhere/keys cannot be read" in err
    assert err.count("\n") == 1


def test_a_busy_port_ends_it_in_one_sentence(address: tuple[str, int]) -> None:
    process = start(*argv(port=address[1]))
    _, err = process.communicate(timeout=15)
    assert process.returncode == 1
    assert f"cannot listen on 127.0.0.1:{address[1]}" in err
    assert "in use" in err
    assert err.count("\n") == 1


REQUIRED = [item.name for item in dataclasses.fields(MockOptions) if item.default is dataclasses.MISSING]


@pytest.mark.parametrize("name", REQUIRED)
def test_it_takes_the_services_arguments_as_the_launcher_does_and_needs_each(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = argv()
    pairs = zip(given[::2], given[1::2], strict=True)
    with pytest.raises(SystemExit) as ended:
        mock.main([word for flag, value in pairs if flag != dials.flag(name) for word in (flag, value)])
    assert ended.value.code == 2
    assert dials.flag(name) in capsys.readouterr().err


def test_its_arguments_become_the_services_options_and_it_listens_everywhere_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[MockOptions] = []

    def run(options: MockOptions) -> int:
        seen.append(options)
        return 0

    monkeypatch.setattr(mock, "run", run)
    assert mock.main(dials.argv(OPTIONS)) == 0
    assert mock.main(argv(port=1234)) == 0
    assert seen == [dials.take(MockOptions, OPTIONS, host="", port=8000), dials.take(MockOptions, OPTIONS, host="127.0.0.1", port=1234)]


def test_the_mock_answers_on_both_ip_families() -> None:
    with mock.listen("::", 0) as listener:
        port = listener.getsockname()[1]
        for address in ("127.0.0.1", "::1"):
            with socket.create_connection((address, port), timeout=5):
                pass
