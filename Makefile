# Thin on purpose: each target is `python3 -m setup <verb>`, which reads STACK, YES and TIERS.
PYTHON ?= python3
export STACK YES TIERS

.PHONY: help up preview down setup test demo demo-down lint
help:
	@$(PYTHON) -m setup

up preview down setup test demo demo-down lint:
	@$(PYTHON) -m setup $@
