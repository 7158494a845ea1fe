"""The dispatch of sub-commands, and what each part of serving/ needs to be there."""

import subprocess
import sys
from pathlib import Path

import pytest

from serving import __main__ as dispatch

ROOT = Path(__file__).parents[2]
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "serving").rglob("*.py")}
# Beside vLLM, which has tokenizers and jinja2, and with the web server and the metrics that vLLM brings as well.
WITH_PROMPTS = {"serving.engines.prompt", "serving.engines.vllm", "serving.launch.middleware"}
WITH_SERVER = {"serving.launch.mock", "serving.web.service", "serving.rank.scorer", "serving.metrics"}


def imported(code: str, *words: str, bare: bool) -> set[str]:
    """The modules that `code` imports; `bare`: without site-packages, as in an image of Python alone."""
    program = f"import sys; before = set(sys.modules)\n{code}\nprint(*sorted(set(sys.modules) - before), file=sys.stderr)"
    done = subprocess.run([sys.executable, *["-S"] * bare, "-c", program, *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def foreign(modules: set[str]) -> set[str]:
    """Packages among them that are neither ours nor the standard library's."""
    return {name.partition(".")[0] for name in modules} - set(sys.stdlib_module_names) - {"serving", "__mp_main__"}


@pytest.mark.parametrize("argv", [[], ["serve"], ["--help"]])
def test_an_unknown_sub_command_is_refused_with_the_known_ones(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch.main(argv) == 2
    assert "must be one of launch, mock, health, populate, key" in capsys.readouterr().err


def test_every_sub_command_has_a_main() -> None:
    assert {f"serving.{module}" for module in dispatch.COMMANDS.values()} <= MODULES
    code = "import importlib\nfor name in sys.argv[1:]: assert callable(importlib.import_module(f'serving.{name}').main)"
    imported(code, *dispatch.COMMANDS.values(), bare=False)


def test_the_health_check_imports_no_http_library_and_no_other_sub_command() -> None:
    found = imported("from serving import __main__; __main__.main(['health'])", bare=True)
    assert not found & {"argparse", "http.client", "urllib.request", "json", "ssl", "asyncio"}
    assert {name for name in found if name.startswith("serving")} == {"serving", "serving.__main__", "serving.health", "serving.health.probe"}


@pytest.mark.parametrize("command", ["health", "key", "populate", "launch"])
def test_health_key_populate_and_launch_need_nothing_but_the_standard_library(command: str) -> None:
    code = "import importlib; importlib.import_module(f'serving.{sys.argv[1]}')"
    assert not foreign(imported(code, dispatch.COMMANDS[command], bare=True))


def test_serving_imports_nothing_that_the_image_may_lack() -> None:
    code = "import importlib\nfor name in sys.argv[1:]: importlib.import_module(name)"
    assert not foreign(imported(code, *sorted(MODULES - WITH_PROMPTS - WITH_SERVER), bare=True))


def test_the_mock_needs_its_web_server_and_the_metrics_library_and_what_those_need() -> None:
    code = (
        "from serving.launch import mock; from tests.support.options import service_options\nmock.server(mock.build(service_options())).config.load()"
    )
    needed = {"uvicorn", "prometheus_client", "h11", "click", "typing_extensions"}
    assert foreign(imported(code, bare=False)) - {"tests"} <= needed
    importing = "import importlib\nfor name in sys.argv[1:]: importlib.import_module(name)"
    assert foreign(imported(importing, *sorted(WITH_SERVER), bare=False)) <= needed
