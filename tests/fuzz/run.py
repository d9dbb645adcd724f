"""Coverage-guided fuzzing: `python tests/fuzz/run.py TARGET SECONDS`, from the checkout's root.

Starts from the saved corpus in `tests/fuzz/corpus/TARGET`, writes nothing there. A finding is written to the current
directory and makes the exit code non-zero; put it into the corpus once it is fixed.
"""

import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[2]
INPUT_BYTES_MAX = 20_000


def main() -> None:
    """Run one target for some seconds."""
    name, seconds = sys.argv[1], sys.argv[2]
    sys.path.insert(0, str(ROOT))
    with atheris.instrument_imports(include=["dwcp_migrate"]):
        from tests.fuzz.targets import TARGETS
    with tempfile.TemporaryDirectory() as fresh:
        corpus = Path(__file__).parent / "corpus" / name
        arguments = [sys.argv[0], f"-max_total_time={seconds}", f"-max_len={INPUT_BYTES_MAX}", "-print_final_stats=1"]
        atheris.Setup([*arguments, fresh, str(corpus)], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
