"""The facts of this machine that figures hang on."""

import os
import platform
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx512_vnni")


def facts(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """Processor, cores, memory, load and the time."""
    try:
        lines = [line.split(":", 1) for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if ":" in line]
    except OSError:  # not Linux
        lines = []
    named = {name.strip(): value.strip() for name, value in lines}
    flags = set(named.get("flags", named.get("Features", "")).split())
    processor = named.get("model name", platform.processor() or platform.machine())
    return {
        "cpu": re.sub(r"\s+", " ", f"{processor} (family {named.get('cpu family', '?')}, model {named.get('model', '?')})"),
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "memory GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
        "load before": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.release()}",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }
