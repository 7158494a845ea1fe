"""What `make up` needs before there is an environment: Python's standard library only."""
