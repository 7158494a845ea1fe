"""An ASGI app on a loopback port of this very process, so that a test can both call it as its users do and look into it."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future

from serving import mock
from serving.asgi import App

START_SECONDS = 10.0


@contextlib.contextmanager
def running(app: App) -> Iterator[tuple[str, int]]:
    """The address on which `app` is served, by the mock's server in a thread. No request outlives the block by more than the mock's own stop."""
    started: Future[tuple[str, int]] = Future()
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        await mock.serve(app, "127.0.0.1", 0, stop=stop, ready=started.set_result)

    def work() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=work, name="asgi")
    thread.start()
    try:
        yield started.result(START_SECONDS)
    finally:
        for loop, stop in loops:
            with contextlib.suppress(RuntimeError):  # it ended by itself
                loop.call_soon_threadsafe(stop.set)
        thread.join(START_SECONDS + mock.STOP_SECONDS)
        assert not thread.is_alive(), "the server did not stop"
