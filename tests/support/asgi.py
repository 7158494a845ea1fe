"""An ASGI app on a loopback port of this very process, so that a test can both call it as its users do and look into it."""

import contextlib
import socket
import threading
from collections.abc import Iterator

from serving.asgi import App
from serving.launch import mock
from tests.support.engine import wait_until

START_SECONDS = 10.0


@contextlib.contextmanager
def running(app: App) -> Iterator[tuple[str, int]]:
    """The address on which `app` is served, by the mock's server in a thread. No request outlives the block by more than the mock's own stop."""
    listener = socket.create_server(("127.0.0.1", 0))
    # asyncio sets it for sockets that name their protocol alone; without it every answer waits 40 ms for its headers' acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    address: tuple[str, int] = listener.getsockname()
    server = mock.server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="asgi")
    thread.start()
    try:
        wait_until(lambda: server.started, seconds=START_SECONDS, every=0.005)
        yield address
    finally:
        server.should_exit = True
        thread.join(START_SECONDS + mock.STOP_SECONDS)
        assert not thread.is_alive(), "the server did not stop"
