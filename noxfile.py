"""What has to pass, as commands. ``nox`` runs lint, types and coverage; ``nox --list`` shows the rest.

``nox --no-venv --no-install`` runs them in the environment that is active.
"""

from __future__ import annotations

from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.sessions = ["lint", "types", "coverage"]
nox.options.reuse_existing_virtualenvs = True

PYPROJECT = nox.project.load_toml("pyproject.toml")
SUITE = ("-e", ".[all,test]")
EXTRAS = sorted(set(PYPROJECT["project"]["optional-dependencies"]) - {"all", "test", "postgres"})
PURE = ("model", "interfaces", "rules", "retry")
# Of what `full` runs: rooms whose tests look at no clock but their own, so that they may run side by side.
SIDE_BY_SIDE = tuple(f"tests/{room}" for room in ("conformance", "unit", "sim", "planted", "fuzz", "power", "mutation"))
MUTATED = ("rules", "model", "retry", "engine")
HERE = {"PYTHONPATH": "src"}  # what is tested is what stands here
FUZZED = sorted(path.name for path in Path("tests/fuzz/corpus").iterdir())


def group(name: str) -> tuple[str, ...]:
    """What a dependency group of pyproject.toml asks for."""
    return nox.project.dependency_groups(PYPROJECT, name)


@nox.session
def lint(session: nox.Session) -> None:
    """Check rules, format and who imports whom."""
    session.install("-e", ".", *group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check types twice: mypy strict and pyright."""
    session.install(*SUITE, *group("types"))
    session.run("mypy")
    session.run("pyright")


@nox.session(python=nox.project.python_versions(PYPROJECT))
def tests(session: nox.Session) -> None:
    """Run the suite on every supported Python that is installed."""
    session.install(*SUITE)
    session.run("python", "-m", "pytest", "-n", "auto", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the suite and hold branch coverage: everything of the pure rooms, 95 % of all."""
    session.install(*SUITE)
    session.run("coverage", "erase")
    session.run("python", "-m", "pytest", "-n", "auto", "--cov", "--cov-report=", *session.posargs)
    session.run("coverage", "report", "--fail-under=95")
    pure = ",".join(f"*/deadletter/{room}/*" for room in PURE)
    session.run("coverage", "report", f"--include={pure}", "--fail-under=100")


@nox.session
def full(session: nox.Session) -> None:
    """Run what needs Debian's packages, a quiet machine or more time; or what is named."""
    session.install(*SUITE, *group("full"))
    command = ("python", "-m", "pytest", "-m", "full", "--timeout=600")
    if session.posargs:
        session.run(*command, *session.posargs)
        return
    session.run(*command, "-n", "auto", *SIDE_BY_SIDE)
    session.run(*command, *(f"--ignore={room}" for room in SIDE_BY_SIDE))


@nox.session
def proof(session: nox.Session) -> None:
    """Prove it a few thousand times and write the figures down; goes on where it stopped."""
    session.install(*SUITE)
    session.run("python", "-m", "tests.proof", *session.posargs, env=HERE)


@nox.session
def soak(session: nox.Session) -> None:
    """Prove it at volume and write the figures down: 90 minutes, and on from there when it is started again."""
    session.install(*SUITE)
    if not session.posargs:
        session.run("python", "-m", "tests.proof", "--long", "--minutes", "90", env=HERE)
    session.run("python", "-m", "pytest", "-m", "soak", "--timeout=0", *session.posargs)


@nox.session
def mutate(session: nox.Session) -> None:
    """Spoil the library piece by piece, and count what the tests notice; goes on where it stopped. Or: one room."""
    session.install(*SUITE)
    for room in session.posargs or MUTATED:
        session.run("python", "-m", "tests.mutation", room, env=HERE)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Let atheris look for inputs that break us: 60 s for each target, or ``nox -s fuzz -- codec 600``."""
    session.install(*SUITE, *group("fuzz"))
    chosen, seconds = (session.posargs[:1], session.posargs[1:2]) if session.posargs else (FUZZED, [])
    for target in chosen:
        session.run("python", "-m", "tests.fuzz", target, "--guided", *(seconds or ["60"]), env=HERE)


@nox.session
@nox.parametrize("extra", ["core", *EXTRAS])
def extras(session: nox.Session, extra: str) -> None:
    """Install each extra alone, and try what it enables; what is missing names the extra to install."""
    session.install(f".[{extra}]" if extra != "core" else ".")
    session.run("python", "-m", "tests.extras", extra)


@nox.session
def api(session: nox.Session) -> None:
    """Compare the names that users import with the last release: ``nox -s api``, or ``nox -s api -- v1.2.0``."""
    session.install(*group("api"))
    session.run("python", "-m", "tests.public_api", *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """Build sdist and wheel, and look inside."""
    session.install(*group("package"))
    out = session.create_tmp()
    for old in Path(out).glob("deadletter_sdk-*"):
        old.unlink()
    session.run("python", "-m", "build", "--outdir", out, silent=True)
    built = sorted(str(path) for path in Path(out).glob("deadletter_sdk-*"))
    session.run("twine", "check", "--strict", *built)
    session.run("check-wheel-contents", *(path for path in built if path.endswith(".whl")))


@nox.session
def bench(session: nox.Session) -> None:
    """Run every benchmark, or those that are named: ``nox -s bench -- enqueue``."""
    session.install(*SUITE, *group("bench"))
    for script in sorted(Path("benchmarks").glob("[!_]*.py")):
        if not session.posargs or script.stem in session.posargs:
            session.run("python", str(script))


@nox.session(name="bench-peers")
def bench_peers(session: nox.Session) -> None:
    """Measure us beside other libraries and the storms, into the documentation: some 25 minutes; ``-- --quick``: 4."""
    session.install(*SUITE, *group("bench"))
    page = "docs/explanation/performance.md"
    apart = Path(session.create_tmp()) / "apart"
    session.run("python", "-m", "venv", str(apart))
    python = str(apart / "bin/python")
    session.run(python, "-m", "pip", "install", "-q", *group("bench-apart"), external=True)
    pythons = [f"--python=celery={python}", f"--python=taskiq={python}"]
    session.run("python", "benchmarks/peers/run.py", "--docs", page, *pythons, *session.posargs, env=HERE)
    quick = [asked for asked in session.posargs if asked == "--quick"]
    session.run("python", "benchmarks/backoff/decisions.py", *quick, env=HERE)
    session.run("python", "benchmarks/backoff/storms.py", "--plots", "docs/explanation/plots", *quick, env=HERE)


@nox.session(name="bench-guard")
def bench_guard(session: nox.Session) -> None:
    """Count the instructions of the hot paths beside the committed baseline; wants Debian's valgrind."""
    session.install(*SUITE)
    session.run("python", "benchmarks/guard/guard.py", *session.posargs, env=HERE)


@nox.session
def openapi(session: nox.Session) -> None:
    """Write the OpenAPI document anew from the endpoints and classes of the HTTP API."""
    session.install("-e", ".[http]")
    code = "from deadletter.http.app import endpoints; from deadletter.http.openapi import written"
    path = "docs/reference/openapi.json"
    session.run("python", "-c", f"{code}; open({path!r}, 'wb').write(written(endpoints()))")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    session.install(*SUITE, *group("docs"))
    session.run("sphinx-build", "-W", "-n", "docs", "docs/_build/html")


@nox.session
def screenshots(session: nox.Session) -> None:
    """Take the pictures of the dashboard that the documentation shows; wants Debian's chromium."""
    session.install(*SUITE, *group("browser"))
    session.run("python", "docs/screenshots.py")
