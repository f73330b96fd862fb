"""How long `janus --help` takes, and how long it is from launch to the first image token.

    python startup.py --model DIR --janus ../../target/release/janus

The first token is seen as a user sees it: in a pseudo-terminal, by the progress line. Unix.
"""

import argparse
import os
import pty
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path


def help_time(janus: Path) -> float:
    start = time.perf_counter()
    subprocess.run([janus, "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def first_token(janus: Path, model: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        child, terminal = pty.fork()
        if child == 0:
            os.execv(janus, [str(janus), "generate", "a red cube", "--model", str(model), "--device", "cpu",
                             "--output", f"{folder}/x.png"])
        seen = b""
        while b"step " not in seen:
            seen += os.read(terminal, 4096)
        seconds = time.perf_counter() - start
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--janus", type=Path, required=True)
    args = parser.parse_args()
    helps = [help_time(args.janus) for _ in range(50)]
    print(f"janus --help: median {statistics.median(helps) * 1e3:.1f} ms of 50, at most {max(helps) * 1e3:.1f} ms")
    first_token(args.janus, args.model)  # the file may be cold
    firsts = [first_token(args.janus, args.model) for _ in range(5)]
    print(f"launch to first image token: median {statistics.median(firsts):.2f} s of 5, at most {max(firsts):.2f} s")


if __name__ == "__main__":
    main()
