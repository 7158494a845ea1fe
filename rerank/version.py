"""The version of the package and the command: its one home, which pyproject.toml reads too."""

VERSION = "0.1.0"
