"""A developer's verbs: ``nox -s demo``, ``nox -s benchmark``; the tests are tox's."""

import pathlib

import nox

nox.options.sessions = ["demo"]
nox.options.default_venv_backend = "venv"

SAMPLES = [
    "./sample_plugins/calculator-plugin",
    "./sample_plugins/escape-plugin",
    "./sample_plugins/image-plugin",
    "./sample_plugins/ops-host",
    "./sample_plugins/text-host",
    "./sample_plugins/text-hooks-plugin",
    "./sample_plugins/user-auth-plugin",
]


@nox.session
def demo(session: nox.Session) -> None:
    """Install hostkit and the sample plugins as packages, and run the calculator in both modes."""
    session.install(".", *SAMPLES)
    hostkit = ("hostkit", "--app", "hostkit")
    session.run(*hostkit, "list")
    session.run(*hostkit, "execute", "calculator", '{"operation": "add", "a": 2, "b": 3}', "--isolation", "none")
    session.run(*hostkit, "execute", "calculator", "operation=divide", "a=1", "b=3", "--isolation", "process")
    session.run(*hostkit, "execute", "calculator", "operation=divide", "a=1", "b=0", "--isolation", "process", success_codes=[1])
    session.run(*hostkit, "health", "calculator")
    session.run(*hostkit, "info", "calculator")
    session.run("python", "-m", "texthost", "the quick brown fox", "--isolation", "process")


@nox.session(name="demo-ops")
def demo_ops(session: nox.Session) -> None:
    """Watch five plugins under load by every means there is, and check what they say; ``-- --stay`` leaves all of it running for a look."""
    session.install(".[top,web,prometheus,otel]", "opentelemetry-sdk>=1.40", *SAMPLES)
    # After Ctrl-C it ends what it has started, and says how that went.
    session.run("python", "sample_plugins/ops-host/demo.py", *session.posargs, interrupt_timeout=60)


@nox.session
def pictures(session: nox.Session) -> None:
    """Make docs/images anew from real runs, all of them or those that are named: ``-- worker-restart``. Screenshots need Chromium."""
    groups = nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "pictures")
    session.install(".[top,web,prometheus,otel]", *groups, *SAMPLES)
    session.run("python", "docs/pictures", *session.posargs)


@nox.session
def benchmark(session: nox.Session) -> None:
    """Measure hostkit beside its peers; arguments go to ``python -m benchmarks``."""
    session.install(".", *nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "benchmark"))
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Run the long tests: random interleavings and many start and stop cycles."""
    session.install(".", *nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "test"), *SAMPLES)
    session.run("python", "-m", "pytest", "tests/soak", "--override-ini=python_files=soak_*.py", "--timeout=1800", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz what reads the other side's words, guided by coverage; arguments go to ``tests/fuzz/run.py``: ``-- --minutes 10 frames``."""
    session.install(".", "atheris>=3.0")
    session.run("python", "tests/fuzz/run.py", *session.posargs)


@nox.session
def template(session: nox.Session) -> None:
    """Run what every worker must do over workers that are forked from the template."""
    session.install(".", *nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "test"), *SAMPLES)
    names = ("contract", "launch", "limits", "supervisor", "template")
    files = [*(f"tests/test_{name}.py" for name in names), *map(str, sorted(pathlib.Path("tests").glob("test_faults_*.py")))]
    session.run("python", "-m", "pytest", "-n", "2", *files, *session.posargs, env={"HOSTKIT_TEST_START": "template"})


@nox.session
def fix(session: nox.Session) -> None:
    """Format, and mend what ruff can mend."""
    session.install(*nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "lint"))
    session.run("ruff", "check", "--fix")
    session.run("ruff", "format")
