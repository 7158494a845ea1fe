"""python -m bench.serving [PART ...]: measures the serving layer on this machine; writes bench/figures/."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from bench.serving import parts, report
from bench.serving.stage import ROOT, Missing, Stage, defaults, docker
from rerank.bench.machine import facts

FIGURES = ROOT / "bench" / "figures"


def machine(stage: Stage) -> dict[str, Any]:
    """The facts that the numbers hang on."""
    versions = json.loads(
        stage.inside(
            "-c", "import json, platform, torch, vllm; print(json.dumps([platform.python_version(), torch.__version__, vllm.__version__]))"
        ).splitlines()[-1]
    )
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, timeout=60
    ).stdout.strip()
    changed = subprocess.run(
        ["git", "-C", str(ROOT), "status", "--porcelain", "serving"], capture_output=True, text=True, check=False, timeout=60
    ).stdout.strip()
    return {
        **facts(),
        "cores of each container": stage.cpus,
        "python, torch, vllm of the image": versions,
        "commit": commit + (" with changes in serving/" if changed else ""),
    }


def main(argv: list[str]) -> int:
    measured: dict[str, Callable[..., parts.Found]] = {
        "start": parts.start,
        "speed": parts.speed,
        "ragflow": parts.ragflow,
        "avx2": parts.avx2,
        "quality": parts.quality,
        "guard": parts.guard,
    }
    counts = parts.Counts()
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(measured)} (default: all), or report: write table and plot again")
    for name, default in vars(counts).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--cpus", type=int, default=2, help="of each container")
    parser.add_argument("--ranking-model", default="", help="a model that ranks, made by bench/ranking_model.py; else it is made")
    parser.add_argument("--keep", default="", metavar="TOKEN", help="keep image and models under this name for the next run")
    given = parser.parse_args(argv)
    chosen = given.parts or list(measured)
    if unknown := set(chosen) - {*measured, "report"}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    counts = parts.Counts(**{name: getattr(given, name) for name in vars(counts)})
    try:
        docker("version", seconds=60)
        stage = Stage(base=f"vllm-cpu:{defaults().vllm_version}", cpus=given.cpus, keep=given.keep)
        if chosen != ["report"]:
            _measure(stage, {name: measured[name] for name in chosen if name in measured}, counts, given.ranking_model)
    except Missing as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FIGURES.glob("*.json"))}
    (FIGURES / "serving.md").write_text(report.table(results), encoding="utf-8")
    (FIGURES / "serving.svg").write_text(report.plot(results), encoding="utf-8")
    print(report.table(results))
    return 0


def _measure(stage: Stage, chosen: dict[str, Callable[..., parts.Found]], counts: parts.Counts, ranking_model: str) -> None:
    try:
        stage.build()
        stage.prepare()
        texts = parts.Texts(stage.texts())
        on = machine(stage)
        FIGURES.mkdir(exist_ok=True)
        for name, measure in chosen.items():
            more = {"directory": ranking_model} if name == "quality" else {}
            before = os.getloadavg()[0]
            found = measure(stage, texts, counts, **more)
            (FIGURES / f"{name}.json").write_text(
                json.dumps({"machine": {**on, "load before": round(before, 1)}, "counts": vars(counts), "found": found}, indent=1) + "\n",
                encoding="utf-8",
            )
    finally:
        stage.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
