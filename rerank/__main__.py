"""`python -m rerank`: the command, from a checkout or an installed copy."""

from rerank.command import main

if __name__ == "__main__":
    main()
