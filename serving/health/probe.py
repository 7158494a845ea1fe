"""`health`: asks the server inside this container whether it is well. A bare socket of the C module: to import more than that takes longer than to ask."""

import _socket

ADDRESS = ("127.0.0.1", 8000)
TIMEOUT_SECONDS = 5.0
ANSWER_BYTES = 4000


def check(address: tuple[str, int] = ADDRESS, timeout: float = TIMEOUT_SECONDS) -> str:
    """Returns "" where GET /health answers 200 within `timeout` seconds, else the reason: a sentence, or the service's own answer."""
    host, port = address
    try:
        connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            connection.connect(address)
            connection.sendall(f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while len(answer) < ANSWER_BYTES and (more := connection.recv(ANSWER_BYTES)):
                answer += more
        finally:
            connection.close()
    except TimeoutError:
        return f"http://{host}:{port}/health did not answer within {timeout:g} s: the server is busy or stuck."
    except OSError as error:
        return f"http://{host}:{port}/health cannot be reached ({error.strerror or error}): the server is still starting, or it has stopped."
    line, _, rest = answer.partition(b"\n")
    words = line.split()
    if len(words) >= 2 and words[0].startswith(b"HTTP/1.") and words[1] == b"200":
        return ""
    return _body(rest) or f"http://{host}:{port}/health answered {line.decode('latin-1').strip()!r} instead of 200: see the container's log."


def _body(rest: bytes) -> str:
    """What stands after the headers, in one line; "" where that is nothing."""
    return " ".join(rest.partition(b"\r\n\r\n")[2].decode("utf-8", "replace").split())


def main(argv: list[str]) -> int:
    """Exit status 0 and "healthy", or 1 and the reason, on standard output, where `docker inspect` keeps it."""
    if argv:
        print(f"health takes no arguments, but got {argv!r}.")
        return 1
    reason = check()
    print(reason or "healthy")
    return 1 if reason else 0
