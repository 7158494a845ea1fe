"""What a preview without changes costs, against a bare program that declares as many resources of the same types.

    python -m bench.preview [RUNS]

Needs pulumi and a Docker daemon on this machine. Prints a table, then one line of JSON; exits 1 where the ratio of the medians is above 1.5.
Both projects have the same Pulumi.yaml, interpreter, plugins and daemon, and are measured in turn.
"""

import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.support import baseimage
from tests.support.engine import Project, docker, standin

LIMIT = 1.5
RUNS = 9

BARE = """
import pulumi, pulumi_command as command, pulumi_docker as docker
counts, names, base, host = {counts!r}, {token!r}, {base!r}, {host!r}
opts = pulumi.ResourceOptions(provider=docker.Provider("host", host=host))
for kind, count in counts.items():
    for at in range(count):
        name = f"{{kind.split(':')[-1]}}-{{at}}"
        if kind.startswith("rerank:"):
            pulumi.ComponentResource(kind, name)
        elif kind == "docker:index/network:Network":
            docker.Network(name, name=f"{{names}}-{{name}}", opts=opts)
        elif kind == "docker:index/volume:Volume":
            docker.Volume(name, name=f"{{names}}-{{name}}", opts=opts)
        elif kind == "docker:index/image:Image":
            docker.Image(name, image_name=f"{{names}}-{{name.lower()}}:bare", skip_push=True, opts=opts,
                         build=docker.DockerBuildArgs(context=".", dockerfile="images/Dockerfile.serving", args={{"BASE": base}}))
        elif kind == "docker:index/container:Container":
            docker.Container(name, name=f"{{names}}-{{name}}", image=base, command=["sleep", "3600"], opts=opts)
        elif kind == "command:local:Command":
            command.local.Command(name, create="true")
        else:
            raise SystemExit(f"bench/preview.py does not know how to declare a bare {{kind}}")
"""


def bare(root: Path, ours: Project, base: str) -> Project:
    """A project with as many resources of each type as `ours` has in its state."""
    kinds = Counter(item["type"] for item in json.loads(ours.export())["deployment"]["resources"] if not item["type"].startswith("pulumi:"))
    built = Project(root)
    built.set(baseImage=base)
    host = docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").strip()
    (built.root / "__main__.py").write_text(BARE.format(counts=dict(kinds), token=built.token, base=base, host=host))
    return built


def seconds(project: Project) -> float:
    """Wall time of one preview, which must be empty."""
    began = time.perf_counter()
    project.run("preview", "--non-interactive", "--expect-no-changes")
    return time.perf_counter() - began


def main(runs: int) -> int:
    base = baseimage.ensure(print)
    with tempfile.TemporaryDirectory() as folder:
        ours = Project(Path(folder) / "ours")
        others: list[Project] = [ours]
        try:
            with standin(f"{ours.token}-ragflow", image=base) as name:
                ours.set(baseImage=base, ragflowMode="attach", ragflowContainers=[name])
                ours.set_key("of-the-benchmark")
                ours.up()
                plain = bare(Path(folder) / "bare", ours, base)
                others.append(plain)
                plain.up()
                measured = {"ours": ours, "bare": plain}
                took: dict[str, list[float]] = {label: [] for label in measured}
                for at in range(runs + 1):
                    for label, project in measured.items():
                        one = seconds(project)
                        if at:  # the first of each warms the caches
                            took[label].append(one)
        finally:
            for project in others:
                project.close()
    medians = {label: statistics.median(values) for label, values in took.items()}
    ratio = medians["ours"] / medians["bare"]
    width = max(map(len, took))
    for label, values in took.items():
        print(f"{label:<{width}}  median {medians[label]:.2f} s  min {min(values):.2f} s  max {max(values):.2f} s  of {runs} empty previews")
    print(f"ratio of the medians {ratio:.2f}, at most {LIMIT} wanted")
    print(json.dumps({"seconds": took, "medians": medians, "ratio": ratio, "limit": LIMIT}))
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS))
