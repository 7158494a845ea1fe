"""The health check, and the dispatch of sub-commands it goes through."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving import __main__ as dispatch
from serving import health

ROOT = Path(__file__).parents[2]


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
        assert reason in (said := health.check(address))
        assert bool(said) is bool(reason)


def test_a_server_that_says_nothing_is_unhealthy_after_the_timeout() -> None:
    with answering(None) as address:
        assert "did not answer within 0.1 s: the server is busy or stuck" in health.check(address, timeout=0.1)


def test_a_closed_port_means_starting_or_stopped() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()[:2]
    assert "cannot be reached (Connection refused): the server is still starting, or it has stopped" in health.check(address)


@pytest.mark.parametrize(("reason", "status", "printed"), [("", 0, "healthy"), ("It is ill.", 1, "It is ill.")])
def test_the_reason_is_printed_and_the_status_follows_it(
    reason: str, status: int, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(health, "check", lambda: reason)
    assert health.main([]) == status
    assert capsys.readouterr().out == f"{printed}\n"


@pytest.mark.parametrize("argv", [[], ["serve"], ["--help"]])
def test_an_unknown_sub_command_is_refused_with_the_known_ones(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch.main(argv) == 2
    assert "must be one of launch, mock, health, populate, key" in capsys.readouterr().err


def test_the_health_check_imports_no_http_library_and_no_other_sub_command() -> None:
    code = "import sys; from serving import __main__; __main__.main(['health']); print(*(m for m in sys.modules if m in sys.argv), file=sys.stderr)"
    heavy = ["argparse", "http.client", "urllib.request", "json", "ssl", "asyncio", "serving.launcher", "serving.mock", "serving.keys"]
    done = subprocess.run([sys.executable, "-S", "-c", code, *heavy], cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "\n")


def test_serving_imports_nothing_that_the_image_may_lack() -> None:
    # populate runs where the hub's library is, and imports it itself; prompt and what needs it run beside vLLM, which has tokenizers and jinja2
    ours = sorted({path.stem for path in (ROOT / "serving").glob("*.py")} - {"populate", "prompt", "vllm_engine"})
    code = (
        "import sys, importlib; before = set(sys.modules)\nfor name in sys.argv[1:]: importlib.import_module('serving.' + name)\n"
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names) - {'serving', '__mp_main__'}))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code, *ours], cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
