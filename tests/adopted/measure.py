"""What somebody's own evaluation may be, as a script without a library: numbers of a safetensors checkpoint.

python measure.py CHECKPOINT [--log FILE] [--fail METHOD] [--say TEXT] [--method METHOD] [--zero TENSOR]
"""

import argparse
import json
import os
import struct
import sys
from array import array
from pathlib import Path


def read(path):
    path = Path(path)
    path = path / "model.safetensors" if path.is_dir() else path
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    values, places = {}, {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            first, last = (8 + length + offset for offset in entry["data_offsets"])
            values[name], places[name] = array("f", data[first:last]), (first, last)
    return path, values, places


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    for name in ("--log", "--fail", "--say", "--method", "--zero"):
        parser.add_argument(name)
    given = parser.parse_args()
    path, values, places = read(given.checkpoint)
    if given.log:
        with open(given.log, "a") as file:
            file.write(f"{given.method} {os.environ.get('SECRET_OF_TEST', '')}\n")
    if given.fail and given.fail == given.method:
        print("first line", file=sys.stderr)
        print("it does not like this method", file=sys.stderr)
        raise SystemExit(3)
    if given.zero:
        with open(path, "r+b") as file:
            file.seek(places[given.zero][0])
            file.write(bytes(places[given.zero][1] - places[given.zero][0]))
        return
    print("some words before")
    weights = values["wte.weight"]
    numbers = {
        "loss": sum(w * w for w in weights),
        "spread": max(weights) - min(weights),
        "mean": sum(values["norm.running_mean"]),
    }
    print(given.say or json.dumps(numbers))


main()
