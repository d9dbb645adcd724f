#!/usr/bin/python3 -IS
"""The lab's other guest: /init of an initramfs with a Debian userland, whose memory is filled by real programs.

It is for streams as real guests send them: heaps of an interpreter that updates a dictionary, a SQLite database, page
cache of libraries, sorted and compressed files, logs. Every program checks its own results, so that wrong memory shows;
the page-exact proof is guest/pages.c. Reports as that one does, so the host reads both the same way.

Kernel command line: pages.fill=MiB pages.seed=N pages.dirty=steps_per_s (a step is one update of each program)
"""

import gzip
import hashlib
import mmap
import os
import random
import sqlite3
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

COUNTERS = struct.Struct("<4Q")  # checked, passes, dirtied, errors: one record a program, shared with the reporter
HEAP_ROW_BYTES, DATABASE_ROW_BYTES = 2200, 1500
SHARE_HEAP, SHARE_DATABASE, SHARE_FILES = 0.45, 0.20, 0.35
WORDS = ("select", "update", "customer", "order", "shipped", "pending", "error", "timeout", "GET", "POST", "200", "404")


def phrases(draw: random.Random, words: int) -> list[str]:
    """Make 500 texts to pick from: drawing each word when it is needed would take an emulated guest minutes.

    Args:
        draw: source of the choice; the same seed gives the same texts.
        words: number of words in each.
    """
    return [" ".join(draw.choices(WORDS, k=words)) for _ in range(500)]


def heap(size: int, draw: random.Random) -> Iterator[tuple[int, int]]:
    """Keep records in a dictionary, as services do; the sum of all balances never changes.

    Args:
        size: bytes to fill.
        draw: source of contents and choices.

    Yields:
        After each update: 1 if the sum was checked, else 0; and 1 if it was wrong.
    """
    rows: dict[str, dict[str, object]] = {}
    texts = phrases(draw, 16)
    for number in range(size // HEAP_ROW_BYTES):
        rows[f"customer-{number:08d}"] = {
            "name": f"{draw.choice(WORDS)} {draw.choice(WORDS)} {number}",
            "balance": 1000,
            "history": [f"{number + past}: {draw.choice(texts)}" for past in range(8)],
            "token": draw.randbytes(256),
        }
    keys, steps = list(rows), 0
    while True:
        giver, taker = rows[draw.choice(keys)], rows[draw.choice(keys)]
        giver["balance"], taker["balance"] = int(str(giver["balance"])) - 1, taker["balance"]
        taker["balance"] = int(str(taker["balance"])) + 1
        taker["last"] = f"transfer {steps} {draw.choice(WORDS)}"
        steps += 1
        wrong = steps % 2000 == 0 and sum(int(str(row["balance"])) for row in rows.values()) != 1000 * len(rows)
        yield int(steps % 2000 == 0), int(wrong)


def database(size: int, draw: random.Random) -> Iterator[tuple[int, int]]:
    """Keep a SQLite database in memory-backed files and check its integrity.

    Args:
        size: bytes to fill.
        draw: source of contents and choices.

    Yields:
        After each update: 1 if the database was checked, else 0; and 1 if it was corrupt.
    """
    connection = sqlite3.connect("/data/orders.db", isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute("create table orders (id integer primary key, customer text, state text, note text, at real)")
    connection.execute("create index by_customer on orders (customer)")
    texts = phrases(draw, 100)
    connection.execute("begin")
    for number in range(size // DATABASE_ROW_BYTES):
        note = f"{number} {draw.choice(texts)}"
        row = (number, f"customer-{draw.randrange(10**6):07d}", draw.choice(WORDS), note, time.time())
        connection.execute("insert into orders values (?,?,?,?,?)", row)
    connection.execute("commit")
    steps = 0
    while True:
        chosen = draw.randrange(max(size // DATABASE_ROW_BYTES, 1))
        connection.execute("update orders set state=?, at=? where id=?", (draw.choice(WORDS), time.time(), chosen))
        steps += 1
        due = steps % 1000 == 0
        wrong = due and connection.execute("pragma quick_check").fetchone()[0] != "ok"
        yield int(due), int(wrong)


def files(size: int, draw: random.Random) -> Iterator[tuple[int, int]]:
    """Fill the page cache with copies, sorted listings, compressed archives and logs; compare them by hash.

    Args:
        size: bytes to fill.
        draw: source of the choices.

    Yields:
        After each step: 1 if a file was compared, else 0; and 1 if it differed.
    """
    sources = sorted(path for path in Path("/usr/lib").rglob("*") if path.is_file() and not path.is_symlink())
    draw.shuffle(sources)
    digests: dict[Path, bytes] = {}
    used = 0
    for source in sources:
        data = source.read_bytes()
        if used % 3 == 0:
            data = gzip.compress(data, 1)
        copy = Path("/data/files") / str(len(digests))
        copy.write_bytes(data)
        digests[copy] = hashlib.sha256(data).digest()
        used += len(data)
        if used > size:
            break
    copies = list(digests)
    for steps in range(1, sys.maxsize):
        with Path("/data/log").open("a" if steps % 5000 else "w") as log:
            log.write(f"{time.time():.6f} {draw.choice(WORDS)} request={steps} {draw.choice(copies)}\n")
        if steps % 100 == 0:
            listing = subprocess.run(["sort", "/data/log", "-o", "/data/sorted"], check=False)
            chosen = draw.choice(copies)
            yield 1, int(hashlib.sha256(chosen.read_bytes()).digest() != digests[chosen] or listing.returncode != 0)
        else:
            yield 0, 0


def work(program: Iterator[tuple[int, int]], shared: mmap.mmap, slot: int, pause_s: float) -> None:
    """Run one program for ever and count its results.

    Args:
        program: yields (checks, errors) of each step.
        shared: record of the counters, see `COUNTERS`; the reporter reads it.
        slot: number of the program's record in it.
        pause_s: between two steps.
    """
    checked = passes = dirtied = errors = 0
    for passed, wrong in program:
        dirtied, checked, passes, errors = dirtied + 1, checked + passed, passes + passed, errors + wrong
        COUNTERS.pack_into(shared, slot * COUNTERS.size, checked, passes, dirtied, errors)
        time.sleep(pause_s)


def parameters() -> dict[str, int]:
    """Read pages.* from the kernel's command line."""
    words = [word.partition("=") for word in Path("/proc/cmdline").read_text().split()]
    return {key: int(value) for key, _, value in words if key.startswith("pages.") and value.isdigit()}


def prepare() -> None:
    """Mount what programs expect and speak on the serial console."""
    for kind, where in (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")):
        Path(where).mkdir(exist_ok=True)
        subprocess.run(["/usr/bin/mount", "-t", kind, kind, where], check=True)
    console = os.open("/dev/ttyS0", os.O_RDWR | os.O_NOCTTY)
    for descriptor in range(3):
        os.dup2(console, descriptor)
    Path("/data").mkdir()
    subprocess.run(["/usr/bin/mount", "-t", "tmpfs", "-o", "size=90%", "tmpfs", "/data"], check=True)
    Path("/data/files").mkdir()
    os.environ["PATH"] = "/usr/bin:/usr/sbin"


def report(shared: mmap.mmap, sequence: int, pages: int, programs: int) -> None:
    """Write one line: sums over the programs, but `passes` is the slowest one's, so all have checked that often.

    Args:
        shared: the programs' counters.
        sequence: number of the line.
        pages: that the programs fill.
        programs: number of records in `shared`.
    """
    rows = [COUNTERS.unpack_from(shared, slot * COUNTERS.size) for slot in range(programs)]
    checked, dirtied, errors = (sum(row[column] for row in rows) for column in (0, 2, 3))
    passes = min(row[1] for row in rows)
    mono_ms = time.monotonic_ns() // 1_000_000
    print(
        f"pages: seq={sequence} mono_ms={mono_ms} pages={pages} checked={checked} passes={passes} dirtied={dirtied} "
        f"errors={errors}",
        flush=True,
    )


def main() -> None:
    """Start the programs, wait until all have filled their share, report each second."""
    prepare()
    given = parameters()
    fill, seed = given.get("pages.fill", 256) << 20, given.get("pages.seed", 1)
    pause_s = 1 / max(given.get("pages.dirty", 100), 1)
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    makers: tuple[tuple[Callable[[int, random.Random], Iterator[tuple[int, int]]], float], ...] = (
        (heap, SHARE_HEAP),
        (database, SHARE_DATABASE),
        (files, SHARE_FILES),
    )
    print(f"pages: filling {fill >> 20} MiB with programs, seed={seed}", flush=True)
    for slot, (make, share) in enumerate(makers):
        if os.fork() == 0:
            try:
                draw = random.Random(seed + slot)  # noqa: S311 - contents must replay
                work(make(int(fill * share), draw), shared, slot, pause_s)
            except BaseException:
                COUNTERS.pack_into(shared, slot * COUNTERS.size, 0, 0, 1, 1)  # a program that died found an error
                raise
    while not all(COUNTERS.unpack_from(shared, slot * COUNTERS.size)[2] for slot in range(len(makers))):
        time.sleep(0.5)
    for sequence in range(sys.maxsize):
        report(shared, sequence, fill // 4096, len(makers))
        time.sleep(1)


if __name__ == "__main__":
    try:
        main()
    except BaseException:  # noqa: BLE001 - the end of PID 1 is a panic, whatever the reason
        traceback.print_exc()
        time.sleep(3600)  # the console keeps what happened
