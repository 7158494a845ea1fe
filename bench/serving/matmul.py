"""Runs inside the image: how fast this machine multiplies matrices of the model's shape. Prints one line of JSON, medians in GFLOP/s.

    python3 matmul.py float32|bfloat16 THREADS SECONDS

"matmul" is torch's, "packed" oneDNN's with its weights laid out beforehand, as vLLM's layers have them.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

import torch

ROWS, HIDDEN, INTERMEDIATE = 2048, 1024, 3072

torch.set_num_threads(int(sys.argv[2]))
dtype = getattr(torch, sys.argv[1])
left, right = torch.randn(ROWS, HIDDEN, dtype=dtype), torch.randn(HIDDEN, INTERMEDIATE, dtype=dtype)
packed = torch.ops.mkldnn._reorder_linear_weight(right.t().contiguous(), ROWS)


def gflops(multiply: Callable[[], object]) -> float:
    multiply()
    took: list[float] = []
    end = time.perf_counter() + float(sys.argv[3])
    while len(took) < 5 or time.perf_counter() < end:
        began = time.perf_counter()
        multiply()
        took.append(time.perf_counter() - began)
    return 2 * ROWS * HIDDEN * INTERMEDIATE / statistics.median(took) / 1e9


ways: dict[str, Callable[[], object]] = {
    "matmul": lambda: left @ right,
    "packed": lambda: torch.ops.mkldnn._linear_pointwise(left, packed, None, "none", [], ""),
}
print(json.dumps({name: gflops(way) for name, way in ways.items()}))
