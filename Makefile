# Thin on purpose: each target is `python3 -m setup <verb>`, which reads STACK, YES, TAKE_OVER, TIERS and BENCH.
PYTHON ?= python3
export STACK YES TAKE_OVER TIERS BENCH

.PHONY: help up preview down setup verify test demo demo-down lint bench docker-stop
help:
	@$(PYTHON) -m setup

up preview down setup verify test demo demo-down lint bench docker-stop:
	@$(PYTHON) -m setup $@
