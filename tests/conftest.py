"""The folder of a test is its tier: tests/<tier>/ decides the marker, whether it can run on this machine, and its line in the summary."""

import functools
import os
from pathlib import Path

import pytest

from setup import tiers
from setup.edge import Edge

# before anything imports it: its assertions are to say what they saw
pytest.register_assert_rewrite("tests.support.contract")

TESTS = Path(__file__).resolve().parent
# comma separated: tiers whose tests fail where they would be skipped because the machine lacks something
REQUIRED = [name.strip() for name in os.environ.get("RERANKER_REQUIRE_TIERS", "").split(",") if name.strip()]


@functools.cache
def obstacle(tier: str) -> str:
    """Why the tier cannot run here, asked once a session; empty where it can."""
    return tiers.obstacle(Edge.real(), tier)


def tier_of(path: Path) -> str:
    """Tier of a test file; empty outside the tiers' folders."""
    parts = path.relative_to(TESTS).parts if path.is_relative_to(TESTS) else ()
    return parts[0] if parts and parts[0] in tiers.TIERS else ""


def pytest_configure() -> None:
    unknown = [name for name in REQUIRED if name not in tiers.TIERS]
    if unknown:
        raise pytest.UsageError(f"RERANKER_REQUIRE_TIERS={','.join(unknown)}: choose from {','.join(tiers.TIERS)}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if tier := tier_of(item.path):
            item.add_marker(tier)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    tier = tier_of(item.path)
    why = obstacle(tier) if tier else ""
    if why and tier in REQUIRED:
        pytest.fail(f"{tier} tier is required (RERANKER_REQUIRE_TIERS) and cannot run: {why}", pytrace=False)
    if why:
        pytest.skip(f"{tier} tier: {why}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: dict[str, dict[str, int]] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            tier = tier_of(TESTS.parent / report.nodeid.split("::")[0])
            if tier:
                row = counts.setdefault(tier, {})
                row[outcome] = row.get(outcome, 0) + 1
    for tier in tiers.TIERS:
        if tier in counts:
            terminalreporter.write_line(summary(tier, counts[tier]))


def summary(tier: str, counts: dict[str, int]) -> str:
    """One tier in a line: that it ran, with its counts, or that it was skipped and why."""
    if set(counts) == {"skipped"}:
        return f"tier {tier}: skipped, {obstacle(tier) or 'each test for a reason of its own'}"
    return f"tier {tier}: ran, " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
