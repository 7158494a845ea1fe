"""Where serving/, host/ and Pulumi.yaml are: beside rerank/ in a checkout, in rerank/_house/ in an installed copy (rerank/_build.py puts them there).

They import each other by these general names, which must not stand at the top of anybody's site-packages. `enter` makes them importable for this
process, `environment` for another Python's.
"""

import importlib.util
import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent


def root() -> Path:
    """The folder that holds serving/, host/ and Pulumi.yaml."""
    placed = HERE / "_house"
    return placed if placed.is_dir() else HERE.parent


def checkout() -> Path | None:
    """The checkout that this runs from, or None for an installed copy."""
    return root() if (root() / "stacks").is_dir() else None


def enter(*names: str) -> None:
    """Makes the packages `names` (default: serving and host) importable here, without anything else of their folder. ImportError where others bear the name."""
    for name in names or ("serving", "host"):
        init = root() / name / "__init__.py"
        known = sys.modules.get(name)
        if known is not None:
            if known.__file__ is None or not Path(known.__file__).samefile(init):
                raise ImportError(f"this process has another package named {name} ({known.__file__}): use the command rerank in a process of its own")
            continue
        spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(init.parent)])
        if spec is None or spec.loader is None or not init.is_file():
            raise ImportError(f"{init} is missing: install ragflow-reranker again")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


def environment(surroundings: Mapping[str, str] = os.environ, *more: str) -> dict[str, str]:
    """`surroundings` with a PYTHONPATH on which another Python finds serving; `more` are folders that come after it."""
    before = [surroundings["PYTHONPATH"]] if surroundings.get("PYTHONPATH") else []
    return {**surroundings, "PYTHONPATH": os.pathsep.join([str(root()), *more, *before])}


@cache
def defaults() -> dict[str, object]:
    """The default of each key of Pulumi.yaml, by its name in snake case: 'kv_cache_gib' for kvCacheGiB."""
    import yaml

    keys = yaml.safe_load((root() / "Pulumi.yaml").read_text(encoding="utf-8"))["config"]
    return {snake(name): declared["default"] for name, declared in keys.items() if isinstance(declared, dict) and "default" in declared}


def snake(key: str) -> str:
    """'memory_gib' for memoryGiB."""
    for unit in ("GiB", "MiB"):
        key = key.replace(unit, unit.capitalize())
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in key)
