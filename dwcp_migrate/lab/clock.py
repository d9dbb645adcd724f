"""A wrong clock for one program: its wall clock jumps by what a file says, and nothing else of the machine notices.

clock = WrongClock(directory)
start(program, env=clock.environment)
clock.set(70 * YEAR_S)      # years ahead, while it runs
clock.set(0)
"""

from importlib import resources
from pathlib import Path
from typing import Final

from dwcp_migrate.lab.commands import run_program

YEAR_S: Final = 365 * 86400


class WrongClock:
    """The clock of one program, right at first.

    Args:
        directory: for the library that is preloaded and the file that it reads; the program must be able to read both.

    Raises:
        LabError: no C compiler.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file = directory / "clock"
        self._library = directory / "clock.so"
        source = directory / "clock.c"
        source.write_bytes(resources.files("dwcp_migrate.lab").joinpath("clock.c").read_bytes())
        run_program(["cc", "-O2", "-Wall", "-shared", "-fPIC", "-o", str(self._library), str(source), "-ldl"])
        self.set(0)

    @property
    def environment(self) -> dict[str, str]:
        """Variables that the program's environment must hold."""
        return {"LD_PRELOAD": str(self._library), "DWCP_LAB_CLOCK": str(self._file)}

    def set(self, seconds: int) -> None:
        """Put the clock so far ahead of the machine's, at once; behind it where that is negative."""
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.chmod(0o644)
        new.replace(self._file)
