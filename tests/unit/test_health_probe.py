"""The health check that Docker runs every few seconds."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from serving.health import probe


@contextmanager
def answering(answer: bytes | None) -> Iterator[tuple[str, int]]:
    """A server that gives each connection `answer`; None: it takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                if answer is None:
                    done.wait(10)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[:2]
        done.set()
        thread.join()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", ""),
        (b"HTTP/1.0 200 OK\r\n\r\n", ""),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "answered 'HTTP/1.1 503 Service Unavailable' instead of 200"),
        (b'HTTP/1.1 503 x\r\na: b\r\n\r\n{"status": "unhealthy",\n"reason": "Ill."}', '{"status": "unhealthy", "reason": "Ill."}'),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "instead of 200"),
        (b"SSH-2.0-x 200\r\n", "instead of 200"),
        (b"", "answered '' instead of 200"),
        (b"x" * 5000, "instead of 200"),
    ],
)
def test_only_a_200_is_healthy_and_everything_else_has_a_reason(answer: bytes, reason: str) -> None:
    with answering(answer) as address:
        assert reason in (said := probe.check(address))
        assert bool(said) is bool(reason)


def test_a_server_that_says_nothing_is_unhealthy_after_the_timeout() -> None:
    with answering(None) as address:
        assert "did not answer within 0.1 s: the server is busy or stuck" in probe.check(address, timeout=0.1)


def test_a_closed_port_means_starting_or_stopped() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()[:2]
    assert "cannot be reached (Connection refused): the server is still starting, or it has stopped" in probe.check(address)


def test_it_takes_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(["--port", "1"]) == 1
    assert "takes no arguments" in capsys.readouterr().out


@pytest.mark.parametrize(("reason", "status", "printed"), [("", 0, "healthy"), ("It is ill.", 1, "It is ill.")])
def test_the_reason_is_printed_and_the_status_follows_it(
    reason: str, status: int, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probe, "check", lambda: reason)
    assert probe.main([]) == status
    assert capsys.readouterr().out == f"{printed}\n"
