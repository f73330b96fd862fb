"""Peak memory of `janus generate` beside what `janus estimate` says before.

    python peak_memory.py --model DIR --janus ../../target/release/janus [--num-images 1 4 16]

Linux. Resident memory is what the process owns plus the pages of the weight file it has touched
(VmHWM); the owned part is sampled every 20 ms (RssAnon). The estimate leaves out pages that are read
once, while loading: convolutions that are widened to f32.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

PROMPT = "A portrait of young girl. masterpiece, film grained, best quality."


def status(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines if line.startswith(("VmHWM", "RssAnon"))}


def run(command: list) -> tuple[int, int, float]:
    """Peak resident and peak owned bytes, and seconds."""
    start, resident, owned = time.perf_counter(), 0, 0
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            try:
                now = status(process.pid)
            except (FileNotFoundError, ProcessLookupError):
                break
            resident, owned = max(resident, now.get("VmHWM", 0)), max(owned, now.get("RssAnon", 0))
            time.sleep(0.02)
    if process.wait() != 0:
        raise SystemExit(f"janus ended with {process.returncode}")
    return resident, owned, time.perf_counter() - start


def estimate(args, count: int, tokens: int) -> int:
    command = [args.janus, "estimate", args.model, "--device", "cpu", "--dtype", args.dtype, "--json",
               "--num-images", count, "--prompt-tokens", tokens]
    plans = json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)
    return plans["plans"][0]["generate"][0]["memory"]["total_bytes"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--janus", type=Path, required=True)
    parser.add_argument("--num-images", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--dtype", default="bf16")
    args = parser.parse_args()
    print("| pictures at once | estimate | measured peak | measured / estimate | owned by the process | seconds |")
    print("|---|---|---|---|---|---|")
    for count in args.num_images:
        with tempfile.TemporaryDirectory() as folder:
            resident, owned, seconds = run(
                [args.janus, "generate", PROMPT, "--model", args.model, "--device", "cpu", "--dtype", args.dtype,
                 "--seed", 1, "--num-images", count, "--at-once", count, "--output", f"{folder}/x.png"])
        expected = estimate(args, count, 24)
        print(f"| {count} | {expected / 1e9:.2f} GB | {resident / 1e9:.2f} GB | {resident / expected:.3f} "
              f"| {owned / 1e9:.2f} GB | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
