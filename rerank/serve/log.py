"""Standard input into a log file that is turned over when it is full. Run by its path, so that it imports nothing else and ends with what writes to it."""

import logging
import logging.handlers
import signal
import sys

KEPT = 3  # files, as Docker keeps of the container's


def main(path: str, mib: str) -> None:
    """Lines of standard input into `path`, `mib` MiB a file, until its end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the last words of the server are worth keeping
    file = logging.handlers.RotatingFileHandler(path, maxBytes=int(mib) << 20, backupCount=KEPT - 1, encoding="utf-8")
    for line in sys.stdin.buffer:
        record = logging.LogRecord("server", logging.INFO, "", 0, line.decode("utf-8", "replace").rstrip("\r\n"), None, None)
        file.handle(record)


if __name__ == "__main__":
    main(*sys.argv[1:])
