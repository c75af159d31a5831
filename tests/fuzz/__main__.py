"""Feed one target from the command line: an input again, a range of a seed, or whatever atheris thinks of.

python -m tests.fuzz codec --seed 7 --number 12345
python -m tests.fuzz codec --seed 7 --count 1000000
python -m tests.fuzz codec --guided 60
"""

from __future__ import annotations

import argparse
import sys

from . import guided
from .corpus import keep
from .run import mutated, one
from .targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--hex", help="one input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--number", type=int, help="one input of the seed")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--guided", type=int, metavar="SECONDS", help="let atheris look for new ways through the code")
    said = parser.parse_args()
    if said.guided is not None:
        return guided.fuzz(said.target, said.guided)
    if said.hex is not None:
        told = one(said.target, bytes.fromhex(said.hex))
        print(told or "borne")
        return int(told is not None)
    numbers = range(said.number, said.number + 1) if said.number is not None else range(said.count)
    fed, broken = mutated(said.target, said.seed, numbers)
    if broken is None:
        print(f"{said.target}: {fed} inputs of seed {said.seed} are borne")
        return 0
    print(f"{broken.told}\n{broken.line}\nkept as {keep(said.target, broken.data)}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
