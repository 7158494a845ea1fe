"""`python3 -m setup <verb>`; its first lines run on any Python 3, so that an old one gets a sentence instead of a traceback."""

import sys

if sys.version_info < (3, 10):
    sys.exit("error: python3 is %d.%d, and this project needs 3.10 or newer: run make PYTHON=/path/to/a/newer/python3" % sys.version_info[:2])

from setup.edge import Edge
from setup.verbs import main

sys.exit(main(sys.argv[1:], Edge.real()))
