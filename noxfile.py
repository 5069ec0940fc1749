"""The project's checks as named sessions: `nox -s lint`, `nox -s compat`, ...

`make` runs the same checks in one shared environment; nox adds the ones that need environments of their own
(`compat`). Environments are reused between runs; `nox -R` also skips the installs, and
`nox --no-venv -s lint` runs a session in the environment that is active.
"""

from __future__ import annotations

from pathlib import Path

import nox

nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "layers", "test"]
nox.needs_version = ">=2024.10.9"

TORCH = "torch==2.13.0"
# Both ends of the range in pyproject.toml; the newest is whatever the index has below 6.
TRANSFORMERS = {"oldest": "transformers==5.15.*", "newest": "transformers>=5.15,<6"}


def install(session: nox.Session, extra: str) -> None:
    """Install the project with an extra, torch pinned and first so that nothing else picks its version."""
    if session.virtualenv.is_sandboxed:  # with --no-venv the active environment has what it needs
        session.install(TORCH)
        session.install("-e", f".[{extra}]")


def install_ruff(session: nox.Session) -> None:
    """Install ruff alone, in the version that pyproject.toml names."""
    if session.virtualenv.is_sandboxed:
        dev = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]["dev"]
        session.install(*(requirement for requirement in dev if requirement.startswith("ruff")))


def beside(session: nox.Session, name: str, *packages: str) -> Path:
    """Return the interpreter of an environment inside the session's, made with torch and the packages at first."""
    folder = Path(session.virtualenv.location) / name
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        session.run("python", "-m", "venv", str(folder))
        session.run(str(python), "-m", "pip", "install", "-q", TORCH, external=True)
        session.run(str(python), "-m", "pip", "install", "-q", *packages, external=True)
        (folder / ".installed").touch()
    return python


@nox.session
def fmt(session: nox.Session) -> None:
    """Rewrite the sources in the project's format, with the fixes that are safe."""
    install_ruff(session)
    session.run("ruff", "check", "--fix", ".")
    session.run("ruff", "format", ".")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    install_ruff(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly, on src."""
    install(session, "dev")
    session.run("mypy")


@nox.session
def layers(session: nox.Session) -> None:
    """Check that imports go down the layers."""
    install(session, "dev")
    session.run("lint-imports", "--no-logo")


@nox.session
def test(session: nox.Session) -> None:
    """Run the fast tests, with coverage; further arguments go to pytest."""
    install(session, "dev")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session
def slow(session: nox.Session) -> None:
    """Run the slow tests."""
    install(session, "dev")
    session.run("pytest", "-m", "slow", "-n", "2", *session.posargs)


@nox.session
def quantised(session: nox.Session) -> None:
    """Run the tests on quantised bases, with every quantiser that computes on a CPU."""
    install(session, "dev")
    session.install("bitsandbytes", "torchao", "optimum-quanto")
    session.run("pytest", "tests/quantised", "-m", "slow", *session.posargs)


@nox.session
def coverage_models(session: nox.Session) -> None:
    """Run the contract on every model type of the installed transformers, and write docs/coverage (an hour)."""
    install(session, "dev")
    session.run("python", "-m", "unipetl.testing.coverage_report", "docs", *session.posargs)


@nox.session
def peft(session: nox.Session) -> None:
    """Exchange files with PEFT itself, in an environment that has it."""
    if not session.virtualenv.is_sandboxed:
        session.skip("it would add PEFT to the active environment")
    install(session, "dev")
    session.install("peft>=0.21,<0.22")
    libraries = ["tests/interop/test_peft_library.py", "tests/interop/test_peft_experts_library.py"]
    session.run("pytest", *libraries, "-m", "", *session.posargs)


@nox.session
def adapterhub(session: nox.Session) -> None:
    """Exchange files with AdapterHub's library, which needs an older transformers: an environment beside this one."""
    if not session.virtualenv.is_sandboxed:
        session.skip("it would change the active environment's transformers")
    install(session, "dev")
    python = beside(session, "adapters", "adapters==1.3.0")
    environment = {"UNIPETL_ADAPTERHUB_PYTHON": str(python)}
    session.run("pytest", "tests/interop/test_adapterhub_library.py", "-m", "", *session.posargs, env=environment)


@nox.session
def serve(session: nox.Session) -> None:
    """Serve in processes of their own, under load, and with requests drawn from the OpenAPI document."""
    if not session.virtualenv.is_sandboxed:
        session.skip("it would add schemathesis to the active environment")
    install(session, "dev")
    session.install("schemathesis>=4.10")
    session.run("pytest", "tests/serving", "tests/cli/test_serve.py", "-m", "", *session.posargs)


@nox.session
def browser(session: nox.Session) -> None:
    """Look at the report's page in the system's Chromium, at desktop and telephone width, light and dark."""
    install(session, "dev")
    session.install("playwright>=1.49")
    session.run("pytest", "tests/reporting", "-m", "browser", *session.posargs)


@nox.session
def ray(session: nox.Session) -> None:
    """Compare on a local Ray cluster of two nodes, a worker of which is killed."""
    install(session, "dev")
    session.install("ray>=2.40")
    session.run("pytest", "tests/experiment", "-m", "ray", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    install(session, "docs")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure beside PEFT and AdapterHub's library, each in its own environment; arguments go to the run.

    Without arguments the page in docs/ is written from what was measured.
    """
    if not session.virtualenv.is_sandboxed:
        session.skip("it would add other libraries to the active environment")
    install(session, "dev")
    asked = "import transformers; print(transformers.__version__)"
    same = (session.run("python", "-c", asked, silent=True) or "").strip().splitlines()[-1]
    peers = {"peft": (f"transformers=={same}", "peft>=0.21,<0.22"), "adapterhub": ("adapters==1.3.0",)}
    options = []
    for name, packages in peers.items():
        python = beside(session, name, *packages)
        options += [f"--{name}", str(python)]
    session.run("python", "-m", "benchmarks", "run", *options, *session.posargs)
    if not session.posargs:
        session.run("python", "-m", "benchmarks", "page")


@nox.session
@nox.parametrize("end", list(TRANSFORMERS), ids=list(TRANSFORMERS))
def compat(session: nox.Session, end: str) -> None:
    """Run the fast tests on the oldest and on the newest transformers that pyproject.toml allows."""
    if not session.virtualenv.is_sandboxed:
        session.skip("it would change the active environment's transformers")
    install(session, "dev")
    session.install("--upgrade", TRANSFORMERS[end])
    session.run("pytest", "-n", "2", *session.posargs)
