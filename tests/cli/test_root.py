import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import pytest

from dwcp_migrate import errors
from dwcp_migrate.cli import COMMANDS, EXIT_INTERNAL, report_error, root, run

HELP_CPU_S_MAX = 0.3
MODULES_TOO_SLOW_FOR_HELP = ("numpy", "aiohttp", "libvirt", "pyroute2", "rich", "msgspec", "prometheus_client")
CRUNCHING = ("replay",)
"""Commands that are about numbers from their first line on."""

HEAVY = ("numba", "numpy", "torch", "highspy", "libvirt", "aiohttp", "pyroute2", "dwcp_migrate.placement.kernels")
HERE = Path(__file__)


def test_help_costs_less_cpu_than_a_person_notices() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "dwcp_migrate", "--help"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert all(name in done.stdout for name in COMMANDS)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < HELP_CPU_S_MAX


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from dwcp_migrate.cli import run; run(['--help']); "
        f"sys.exit(','.join(set({MODULES_TOO_SLOW_FOR_HELP!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == "\n" or not done.stderr, f"imported for --help: {done.stderr}"


def test_status_imports_nothing_heavy(agent: Any) -> None:
    socket_path = agent.socket_path
    program = (
        f"import sys; from dwcp_migrate.cli import run; assert run(['status', '--socket', {str(socket_path)!r}]) == 0; "
        "sys.exit(','.join({'numpy', 'aiohttp', 'libvirt', 'pyroute2', 'rich'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"imported for status: {done.stderr}"


def test_no_command_loads_a_compiler_a_solver_or_numbers_before_it_runs() -> None:
    program = f"""
import sys
from importlib import import_module
from dwcp_migrate.cli import COMMANDS, HIDDEN
rooms = {{name: room for name, (room, _) in COMMANDS.items()}} | HIDDEN
for name, room in rooms.items():
    if name not in {CRUNCHING!r}:
        import_module(f"dwcp_migrate.cli.{{room}}.{{name}}")
    for heavy in {HEAVY!r}:
        if heavy in sys.modules:
            sys.exit(f"{{name}} loads {{heavy}}")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


FOR_REQUESTS = (
    "http.client",
    "ssl",
    "asyncio",
    "email",
    "concurrent.futures",
    "cryptography",
    "rich",
    "structlog",
    "prometheus_client",
    "dwcp_migrate.api.unix_http",
    "dwcp_migrate.state.engine",
    "dwcp_migrate.state.fleet.commands",
    "dwcp_migrate.orchestration.workspace",
    "dwcp_migrate.orchestration.executor",
    "dwcp_migrate.orchestration.fleet_source",
    "dwcp_migrate.hypervisor.inventory.hypervisors",
)
"""What asks an agent, reads a fleet or draws a screen: no help and no completion waits for it."""

WITHOUT_AN_AGENT = (
    "dwcp_migrate.api.client",
    "dwcp_migrate.api.migration",
    "dwcp_migrate.api.schema",
    "dwcp_migrate.protocol.control",
)


@pytest.mark.parametrize("name", [name for name, (room, _) in COMMANDS.items() if room != "develop"])
def test_help_of_a_command_loads_nothing_that_only_its_work_needs(name: str) -> None:
    assert loaded_by([name, "--help"], FOR_REQUESTS) == ""


def test_a_look_at_a_configuration_loads_nothing_of_the_agent(tmp_path: Path) -> None:
    (file := tmp_path / "agent.toml").write_text('name = "hv1"\n')
    assert loaded_by(["config", "check", str(file)], (*HEAVY, *FOR_REQUESTS, *WITHOUT_AN_AGENT)) == ""


def loaded_by(arguments: list[str], watched: tuple[str, ...]) -> str:
    """Run a command line in a new process and name those of the watched modules that it loaded."""
    program = (
        f"import sys; from dwcp_migrate.cli import run; code = run({arguments!r}); "
        f"print(*[name for name in {watched!r} if name in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stderr.strip()


LIBRARIES = "import asyncio, http.client, click, msgspec"
"""What any command needs; it takes 0.2 to 0.3 s of CPU."""
TIMES_LIBRARIES_MAX = 3.0
"""Seconds hold on one machine that does nothing else, times hold on all."""


def cpu_s(*arguments: str) -> float:
    """Least CPU of three runs of Python with these arguments, in seconds."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


@pytest.mark.long
def test_commands_start_in_little_more_than_their_libraries_take() -> None:
    allowed_s = TIMES_LIBRARIES_MAX * cpu_s("-c", LIBRARIES)
    names = [name for name in COMMANDS if name not in CRUNCHING]
    took_s = {name: cpu_s("-m", "dwcp_migrate", name, "--help") for name in names}
    assert {name: seconds for name, seconds in took_s.items() if seconds > allowed_s} == {}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_exists_and_helps(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = root.get_command(click.Context(root), name)
    assert isinstance(command, click.Command)
    assert run([name, "--help"]) == 0
    assert "Usage: dwcp-migrate" in capsys.readouterr().out


def documented_exit_codes() -> dict[str, int]:
    """Read the tree in the docstring of `errors`: class name to exit code; a child without one inherits."""
    found, current = {}, 1
    for line in (errors.__doc__ or "").splitlines():
        words = line.replace("│", " ").replace("├──", " ").replace("└──", " ").split()
        if words and words[0].endswith("Error"):
            current = int(words[2]) if words[1:2] == ["exit"] else current
            found[words[0]] = current
    return found


def test_each_error_class_exits_with_its_documented_code() -> None:
    documented = documented_exit_codes()
    assert len(documented) > 10
    for name, code in documented.items():
        assert getattr(errors, name).exit_code == code, name


def test_the_documented_table_of_the_operations_page_is_that_of_the_code() -> None:
    page = (HERE.parents[2] / "docs/operations.md").read_text()
    for name, code in documented_exit_codes().items():
        if f"exit {code}" in (errors.__doc__ or "") and name != "DwcpError":
            assert f"| {code} |" in page, f"{name} ({code}) is missing in docs/operations.md"


def test_an_error_goes_to_stderr_with_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert report_error(errors.HypervisorError("no nft", hint="load nf_tables")) == 5
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: no nft\nhint: load nf_tables\n")


def test_wrong_usage_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["no-such-command"]) == 2
    assert "No such command" in capsys.readouterr().err


def test_a_reader_that_left_is_no_traceback(agent: Any) -> None:
    command = [sys.executable, "-m", "dwcp_migrate", "top", "-n", "50", "-i", "0.2", "--socket", str(agent.socket_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=30) == 1
        assert process.stderr.read() == ""


@pytest.mark.parametrize(("typed", "meant"), [("statu", "status"), ("confg", "config"), ("histroy", "history")])
def test_a_mistyped_command_is_answered_with_the_nearest(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([typed]) == 2
    assert f"Did you mean '{meant}'?" in capsys.readouterr().err


def test_help_is_a_word_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help"]) == 0
    assert "Migrations:" in capsys.readouterr().out
    assert run(["help", "status"]) == 0
    assert "Usage: dwcp-migrate status" in capsys.readouterr().out


def test_an_unforeseen_error_is_no_traceback_but_a_file_to_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(root, "main", broken)
    assert run(["status"]) == EXIT_INTERNAL
    said = capsys.readouterr().err
    assert "Traceback" not in said
    (file,) = tmp_path.iterdir()
    assert str(file) in said
    assert "ZeroDivisionError" in file.read_text()


def test_a_full_disk_is_an_error_with_its_reason(tmp_path: Path) -> None:
    command = f"{sys.executable} -m dwcp_migrate config show --defaults --json > /dev/full"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "No space left" in done.stderr
