"""What an agent loads to start: no compiler, and no kernels that it would have to compile before it is ready."""

import subprocess
import sys

import pytest

HEAVY = ("numba", "torch", "highspy", "dwcp_migrate.placement.kernels")


@pytest.mark.parametrize("module", ["dwcp_migrate.agent.daemon", "dwcp_migrate.dataplane.worker", "dwcp_migrate.cli"])
def test_starting_loads_neither_a_compiler_nor_solvers(module: str) -> None:
    program = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
