"""Times how transformers loads a Hugging Face folder as it would be used: bf16, on the CPU.

    python time_from_pretrained.py DIR
"""

import os
import resource
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import JanusForConditionalGeneration


def private_gib() -> float:
    """Memory that is this process's alone, without pages of mapped files."""
    line = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))
    return int(line.split()[1]) / 2**20


start = time.perf_counter()
model = JanusForConditionalGeneration.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(f"load {seconds:.3f} s, private memory {private_gib():.2f} GiB, peak with file pages {peak:.2f} GiB")
