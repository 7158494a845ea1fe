"""Dispatch of the sub-commands. Each is imported only when it is called: the health check runs every few seconds and must start fast."""

import sys
from importlib import import_module

COMMANDS = {"launch": "launch.run", "mock": "launch.mock", "health": "health.probe", "populate": "populate.run", "key": "keys"}


def main(argv: list[str]) -> int:
    """Runs `argv[0]` with the rest as its arguments; returns the exit status, 2 for an unknown sub-command."""
    if not argv or argv[0] not in COMMANDS:
        print(f"Sub-command {argv[0] if argv else ''!r} is unknown; it must be one of {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    status: int = import_module(f"serving.{COMMANDS[argv[0]]}").main(argv[1:])
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
