"""Coverage-guided fuzzing by atheris: it remembers which inputs reached new code, and goes on from them."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .corpus import FOLDER, keep


def fuzz(target: str, seconds: int) -> int:
    """Let atheris look for so long; what breaks the target is kept in the corpus. 0 where nothing does."""
    with tempfile.TemporaryDirectory() as folder:
        found, crashes = Path(folder, "found"), Path(folder, "crash-")
        found.mkdir()
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.guided", target),
                *(str(found), str(FOLDER / target)),
                *(f"-max_total_time={seconds}", "-timeout=5", "-max_len=4096", "-print_final_stats=1"),
                f"-artifact_prefix={crashes}",
            ],
            check=False,
        )
        broke = sorted(Path(folder).glob("crash-*"))
        for path in broke:
            print(f"kept as {keep(target, path.read_bytes())}")
        print(f"{target}: {len(list(found.iterdir()))} inputs reached new code, {len(broke)} broke it")
        return int(bool(broke) or done.returncode != 0)


def _run() -> None:
    import atheris

    with atheris.instrument_imports(include=["deadletter"]):
        import deadletter

        for module in pkgutil.walk_packages(deadletter.__path__, "deadletter."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)  # what is imported late, too: nothing else of it would be seen
        from .mutator import Mutator
        from .run import WITH_HEAD
        from .targets import TARGETS

    name = sys.argv.pop(1)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        """Values of documents, half of the time: changed bytes are mostly no JSON at all."""
        mutated = Mutator([data], seed, head=int(name in WITH_HEAD)).make(0) if seed % 2 else data
        return mutated[:most] if mutated != data else bytes(atheris.Mutate(data, most))

    atheris.Setup(sys.argv, TARGETS[name], custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    _run()
