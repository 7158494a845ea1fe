"""What the mock has of its own: a server of HTTP/1.1, its scores, its arguments and its end. What it answers is in test_serving_contract.py."""

import asyncio
import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from serving import health, mock
from serving.asgi import Message, Receive, Send
from serving.guard import Guard
from serving.options import GuardOptions
from tests.support import asgi
from tests.support.engine import wait_until
from tests.unit.test_serving_contract import OPTIONS

ROOT = Path(__file__).parents[2]
ARGUMENTS = {
    "--served-model-name": "m", "--instruction": "Find what answers the query", "--max-model-len": "2048", "--deadline-seconds": "25",
    "--min-document-tokens": "64", "--max-query-tokens": "512", "--max-documents": "200", "--max-body-mib": "2", "--cache-entries": "1000", "--golden": "on",
}  # fmt: skip
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
        """Status, headers and body of the next answer; status 0 where the server hung up."""
        line = self.file.readline()
        if not line:
            return 0, {}, b""
        headers = {}
        while (header := self.file.readline().strip()) and header:
            name, _, value = header.decode().partition(": ")
            headers[name] = value
        return int(line.split()[1]), headers, b"" if bare else self.file.read(int(headers.get("content-length", "0")))


@pytest.fixture
def guard() -> Guard:
    return mock.build(OPTIONS)


@pytest.fixture
def address(guard: Guard) -> Iterator[tuple[str, int]]:
    with asgi.running(guard) as found:
        eventually(lambda: guard.vitals.proven)
        yield found


@pytest.fixture
def wire(address: tuple[str, int]) -> Iterator[Wire]:
    with Wire(address) as made:
        yield made


# -- scores


@pytest.mark.parametrize(
    ("query", "better", "worse"),
    [
        ("北京是哪个国家的首都", "北京是中国的首都。", "苹果是红色的。"),
        ("重排序", "重排序模型", "排版模型"),
        ("東京タワー", "東京タワーは高い", "大阪城は広い"),
        ("ＭＥＭＯＲＹ limit", "Set the memory limit", "Set the clock"),
        ("vLLM部署", "如何部署vLLM", "如何部署Ollama"),
    ],
)
def test_shared_words_and_characters_make_a_document_relevant(query: str, better: str, worse: str) -> None:
    asked = list(mock.terms(query))
    assert 1 >= mock.score(asked, mock.terms(better)) > mock.score(asked, mock.terms(worse)) >= 0


def test_scores_lie_between_zero_and_one() -> None:
    assert mock.score(["same", "words"], ["words", "same"]) == 1
    assert mock.score([], ["x"]) == mock.score(["x"], []) == mock.score(mock.terms("?!"), ["x"]) == 0
    assert mock.score(["a", "b"], ["a", "c", "d", "e"]) == pytest.approx(0.9 / 2 + 0.1 / 4)


def test_terms_stand_for_tokens_and_a_cut_document_scores_by_what_is_left() -> None:
    prompts = mock.MockEngine(max_model_len=100).prompts("one two", "beijing", ["capital city beijing", "word " * 500, ""])
    assert (prompts.query, prompts.shared, prompts.tail, list(prompts.documents)) == (1, 3, 0, [3, 101, 0])
    whole, cut, empty = asyncio.run(mock.MockEngine(100).score([prompts.prompt(0, 3), prompts.prompt(0, 2), prompts.prompt(2, 0)]))
    assert whole > cut == empty == 0


def test_a_stall_of_the_machine_cuts_no_document(guard: Guard) -> None:
    guard.scheduler.speed.learn(10, 1.0)
    assert guard.scheduler.speed.tokens_per_second * OPTIONS.deadline_seconds > 200 * OPTIONS.max_documents


# -- HTTP/1.1


def test_one_connection_carries_many_requests_also_when_they_come_at_once(wire: Wire) -> None:
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(CALL) + CALL
    for _ in range(3):
        wire.say(request)
        status, headers, body = wire.answer()
        assert (status, headers.get("connection")) == (200, None)
        assert json.loads(body)["results"][0]["index"] == 1
    wire.say(request + b"GET /version HTTP/1.1\r\n\r\n\r\n" + request)
    assert [wire.answer()[0] for _ in range(3)] == [200, 200, 200]


def test_the_client_may_ask_to_close_and_an_old_one_need_not(address: tuple[str, int]) -> None:
    for request in (b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n", b"GET /health HTTP/1.0\r\n\r\n"):
        with Wire(address) as wire:
            wire.say(request)
            status, headers, _ = wire.answer()
            assert (status, headers["connection"], wire.answer()[0]) == (200, "close", 0)
    with Wire(address) as wire:
        wire.say(b"GET /health HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n" * 2)
        assert [wire.answer()[0], wire.answer()[0]] == [200, 200]


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
    wire.say(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (OPTIONS.max_body_bytes + 1))
    assert wire.answer()[0] == 413


def test_an_answer_to_head_has_no_body(wire: Wire) -> None:
    wire.say(b"HEAD /health HTTP/1.1\r\n\r\n")
    status, headers, _ = wire.answer(bare=True)
    assert status == 405
    assert int(headers["content-length"]) > 0
    wire.say(b"GET /health HTTP/1.1\r\n\r\n")
    assert wire.answer()[0] == 200


def test_the_body_of_a_refused_request_is_not_read_as_a_request(wire: Wire) -> None:
    inner = b"GET /v1/models HTTP/1.1\r\n\r\n"
    wire.say(b"POST /nope HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(inner) + inner)
    status, headers, _ = wire.answer()
    assert (status, headers["connection"]) == (404, "close")
    assert wire.answer()[0] == 0


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_beyond_the_limit_is_refused_while_it_comes_and_the_client_still_reads_why(wire: Wire, guard: Guard, framing: str) -> None:
    size = 20 * OPTIONS.max_body_bytes
    piece = b"x" * (64 << 10)
    wire.say(HEAD + (b"Content-Length: %d\r\n\r\n" % size if framing == "length" else b"Transfer-Encoding: chunked\r\n\r\n"))
    for _ in range(size // len(piece)):  # more than the kernel would hold: the server takes it, and drops it
        wire.say(piece if framing == "length" else b"%x\r\n%b\r\n" % (len(piece), piece))
    status, headers, body = wire.answer()
    assert (status, headers["connection"], json.loads(body)["error"]["code"]) == (413, "close", 413)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /health HTTP/2.0\r\n\r\n", 400),
        (b"GET /he alth HTTP/1.1\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nName : x\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nX: y\r\n folded\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nX: \x00\r\n\r\n", 400),
        (b"GET /" + b"a" * 200_000, 431),
        (b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 20_000, 431),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Content-Length: 1e3\r\n\r\n", 400),
        (HEAD + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n", 400),
        (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + b"T: x\r\n" * 200, 431),
    ],
    ids=lambda given: ascii(given[-40:]) if isinstance(given, bytes) else str(given),
)
def test_what_is_no_http_gets_an_error_and_an_end(wire: Wire, address: tuple[str, int], data: bytes, status: int) -> None:
    wire.say(data)
    got, headers, body = wire.answer()
    assert (got, headers["connection"]) == (status, "close")
    assert json.loads(body)["error"]["code"] == status
    assert wire.answer()[0] == 0
    assert health.check(address) == ""


@pytest.mark.parametrize("data", [b"", b"POST", HEAD, HEAD + b"Content-Length: 100\r\n\r\n{", HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"])
def test_a_client_that_leaves_in_the_middle_does_no_harm(guard: Guard, address: tuple[str, int], data: bytes) -> None:
    with Wire(address) as wire:
        wire.say(data)
    assert health.check(address) == ""
    eventually(lambda: guard.calls == 0)


class Slow(mock.MockEngine):
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
def slow(guard: Guard) -> Slow:
    made = Slow()
    guard.scheduler.engine = made
    guard.vitals.proven, guard.vitals.reason = True, ""  # its golden set would wait as well
    return made


def test_the_work_stops_when_the_client_hangs_up(slow: Slow, guard: Guard, address: tuple[str, int]) -> None:
    with Wire(address) as wire:
        wire.say(HEAD + b"Content-Length: %d\r\n\r\n" % len(CALL) + CALL)
        assert slow.begun.wait(10)
        assert not slow.ended.is_set()
    assert slow.ended.wait(10)
    eventually(lambda: guard.calls == 0)
    assert "reranker_hangups_total 1\n" in guard.metrics.text()


def test_a_client_that_sends_the_next_request_early_has_not_hung_up(slow: Slow, wire: Wire) -> None:
    wire.say(HEAD + b"Content-Length: %d\r\n\r\n" % len(CALL) + CALL + b"GET /health HTTP/1.1\r\n\r\n")
    assert slow.begun.wait(10)
    slow.go.set()
    assert [wire.answer()[0], wire.answer()[0]] == [200, 200]


def test_an_app_that_fails_is_500_and_the_server_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    async def failing(scope: Message, receive: Receive, send: Send) -> None:
        raise RuntimeError("on purpose")

    with asgi.running(failing) as address:
        for _ in range(2):
            with Wire(address) as wire:
                wire.say(b"GET / HTTP/1.1\r\n\r\n")
                assert (wire.answer()[0], wire.answer()[0]) == (500, 0)
    assert "on purpose" in capfd.readouterr().err


# -- the end


def test_a_stop_lets_a_running_answer_end(slow: Slow, guard: Guard) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(contextlib.ExitStack())
        wire = stack.enter_context(Wire(server.enter_context(asgi.running(guard))))
        wire.say(HEAD + b"Content-Length: %d\r\n\r\n" % len(CALL) + CALL)
        assert slow.begun.wait(10)
        threading.Timer(0.1, slow.go.set).start()
        server.close()  # waits for the server's end
        status, headers, _ = wire.answer()
        assert (status, headers["connection"]) == (200, "close")


def test_a_stop_does_not_wait_for_ever(slow: Slow, guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mock, "STOP_SECONDS", 0.05)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(contextlib.ExitStack())
        wire = stack.enter_context(Wire(server.enter_context(asgi.running(guard))))
        wire.say(HEAD + b"Content-Length: %d\r\n\r\n" % len(CALL) + CALL)
        assert slow.begun.wait(10)
        server.close()
        with contextlib.suppress(ConnectionError):
            assert wire.answer()[0] == 0
    assert slow.ended.is_set()


# -- the command


def start(**changed: str) -> "subprocess.Popen[str]":
    """The mock as a process of its own, on a free port; changed: arguments, e.g. api_key_file="/x"."""
    given = ARGUMENTS | {"--host": "127.0.0.1", "--port": "0"} | {f"--{name.replace('_', '-')}": value for name, value in changed.items()}
    argv = [item for pair in given.items() for item in pair]
    return subprocess.Popen([sys.executable, "-m", "serving", "mock", *argv], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@contextlib.contextmanager
def started(**changed: str) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any], tuple[str, int]]]:
    """The process, what it said first, and its address."""
    process = start(**changed)
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        host, port = said["listening"].split(":")
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
        assert json.loads(out.splitlines()[-1]) == {"mock": "stopped", "running": 0}
        assert err == ""


def test_it_is_healthy_right_after_its_start_though_it_bears_a_models_name_and_says_that_its_bands_were_left_out() -> None:
    with started(served_model_name="qwen3-reranker-0.6b", golden="on") as (_, said, address):
        assert said["mock"] == ["qwen3-reranker-0.6b"]
        eventually(lambda: health.check(address) == "", seconds=5)
        with Wire(address) as wire:
            wire.say(b"GET /health HTTP/1.1\r\n\r\n")
            status, _, body = wire.answer()
        assert (status, json.loads(body)["status"]) == (200, "healthy")
        assert any("bands" in sentence for sentence in json.loads(body)["skipped"])


def test_it_reads_its_keys_from_the_file_and_shows_none(tmp_path: Path) -> None:
    (tmp_path / "api_keys").write_text("s3cret-key\n")
    with started(api_key_file=str(tmp_path / "api_keys")) as (process, said, address):
        assert said["key"] is True
        with Wire(address) as wire:
            wire.say(b"GET /v1/models HTTP/1.1\r\nAuthorization: Bearer s3cret-key\r\n\r\nGET /v1/models HTTP/1.1\r\n\r\n")
            assert [wire.answer()[0], wire.answer()[0]] == [200, 401]
        process.terminate()
        out, err = process.communicate(timeout=15)
    assert "s3cret" not in json.dumps(said) + out + err


def test_a_missing_key_file_ends_it_in_one_sentence() -> None:
    process = start(api_key_file="/nowhere/keys")
    out, err = process.communicate(timeout=15)
    assert (process.returncode, out) == (1, "")
    assert "The API key file /nowhere/keys cannot be read" in err
    assert err.count("\n") == 1


def test_a_busy_port_ends_it_in_one_sentence(address: tuple[str, int]) -> None:
    process = start(port=str(address[1]))
    _, err = process.communicate(timeout=15)
    assert process.returncode == 1
    assert f"cannot listen on 127.0.0.1:{address[1]}" in err
    assert "in use" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["--instruction", "--max-model-len", "--deadline-seconds", "--max-body-mib", "--golden", "--served-model-name"])
def test_it_takes_the_guards_arguments_as_the_launcher_does_and_needs_each(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [item for key, value in ARGUMENTS.items() if key != name for item in (key, value)]
    with pytest.raises(SystemExit) as ended:
        mock.main(argv)
    assert ended.value.code == 2
    assert name in capsys.readouterr().err


def test_its_arguments_become_the_guards_options(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[GuardOptions, str, int]] = []
    monkeypatch.setattr(mock, "run", lambda options, host, port: seen.append((options, host, port)) or 0)
    assert mock.main([item for pair in ARGUMENTS.items() for item in pair]) == 0
    ((options, host, port),) = seen
    assert (host, port, options.served_model_names, options.max_body_bytes, options.deadline_seconds) == ("0.0.0.0", 8000, ("m",), 2 << 20, 25.0)


def test_it_needs_nothing_but_the_standard_library() -> None:
    # -S: no site-packages, as in an image of Python alone
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import serving.mock, sys; print(sorted(m.partition('.')[0] for m in sys.modules))"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        text=True,
        capture_output=True,
        timeout=60,
        check=True,
    )
    names = set(eval(done.stdout)) - set(sys.stdlib_module_names)
    assert names <= {"serving", "__main__"}
