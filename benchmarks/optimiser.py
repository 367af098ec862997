"""Seconds of processor time that an optimiser costs a small training: ours against torch's.

Each is tried in a process of its own, since the first optimiser of torch's imports its compiler.

    python benchmarks/optimiser.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys

TRY = """
import sys, time
import torch
from pipeline.training.adamw import AdamW
torch.set_num_threads(1)
weights = [torch.randn(64, 64).requires_grad_() for _ in range(60)]
for weight in weights:
    weight.grad = torch.randn_like(weight)
started = time.process_time()
if sys.argv[1] == "ours":
    optimiser = AdamW([(weights, 0.01)])
    for _ in range(int(sys.argv[2])):
        optimiser.step(0.001)
else:
    optimiser = torch.optim.AdamW(weights, 0.001, weight_decay=0.01)
    for _ in range(int(sys.argv[2])):
        optimiser.step()
print(time.process_time() - started)
"""


def seconds(which: str, steps: int) -> float:
    """Of making the optimiser and of its steps; imports of torch itself do not count."""
    command = [sys.executable, "-c", TRY, which, str(steps)]
    done = subprocess.run(command, check=True, text=True, capture_output=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300, help="as many as the demo's trainings")
    steps = parser.parse_args().steps
    theirs, ours = seconds("theirs", steps), seconds("ours", steps)
    print(f"torch.optim {theirs:.2f} s, ours {ours:.2f} s of processor time for {steps} steps")
    print(f"ratio {theirs / ours:.1f}")


if __name__ == "__main__":
    main()
