"""Images per second of evaluation by batch size, mode and memory format: what `evaluate.batch_size` rests on.

python benchmarks/evaluation_speed.py [--models test_resnet test_vit] [--threads 1] [--rounds 7]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from harness.planning.compose import Request
from harness.planning.resolve import resolve
from harness.problem.images import ImageSet
from harness.problem.models import build_model

IMAGES = 4096
SIZES = (64, 256, 1024, 4096)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["test_resnet", "test_vit"])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    pixels = torch.randint(0, 256, (IMAGES, 1, 28, 28), dtype=torch.uint8)
    images = ImageSet(pixels, torch.zeros(IMAGES, dtype=torch.int64), (0.286,), (0.353,)).to(device)
    modes = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}
    formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    for name in arguments.models:
        overrides = (f"model={name}", "dataset=fashion_mnist", f"device={device}", "method=base")
        base = resolve(Request(overrides), "benchmark").bases[0][0]
        model = build_model(base.model, base.dataset, 0).to(device).eval()
        cases = [(size, mode, layout) for size in SIZES for mode in modes for layout in formats]
        times: dict[tuple[int, str, str], list[float]] = {case: [] for case in cases}
        for round_ in range(arguments.rounds + 1):
            for case in cases:
                size, mode, layout = case
                began = time.perf_counter()
                with modes[mode]():
                    for x, _ in images.batches(size, formats[layout]):
                        model(x)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if round_ > 0:
                    times[case].append(time.perf_counter() - began)
        print(f"{name}, {device}, {arguments.threads} threads, {arguments.rounds} rounds; images/s")
        for case, taken in times.items():
            size, mode, layout = case
            print(f"  batch {size:5d} {mode:15s} {layout:14s} {IMAGES / statistics.median(taken):9,.0f}", flush=True)


if __name__ == "__main__":
    main()
