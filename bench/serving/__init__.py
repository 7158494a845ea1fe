"""The numbers of the serving layer, each measured beside what it is compared with, in one run: `python -m bench.serving --help`."""
