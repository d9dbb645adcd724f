"""The main channel of a migration: sections around RAM records.

    stream := "QEVM" be32 version item*
    item   := 07 CONFIG   be32 n, machine type[n]             05 subsection of it: u8 n, name[n], be32 version, fields
              08 COMMAND  be16 command, be16 n, data[n]
              01 START    be32 id, u8 n, name[n], be32 instance, be32 version; then as PART
              02 PART     be32 id, RAM records .. EOS
              03 END      be32 id, RAM records .. EOS         precopy: the guest is paused from here on
              7e FOOTER   be32 id
              04 FULL     device state, no length

An item without a length is carried literally and parsing resumes where RAM surely begins again: `01 id 03 "ram"
instance 0, version 4` before RAM's first section, `7e id` and a section header of RAM's after it. After RAM's END
nothing of RAM follows in precopy: the rest is opaque, in order. Source: QEMU, migration/savevm.c.
"""

import re
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from dwcp_migrate.qemu.blocks import RamBlocks
from dwcp_migrate.qemu.events import Event, Iteration, Postcopy, RamTotal, Switchover
from dwcp_migrate.qemu.records import RamRecords
from dwcp_migrate.qemu.window import ParseWindow, Surprise

Step = Callable[[ParseWindow, int], int]

EOF: Final = 0x00
START: Final = 0x01
PART: Final = 0x02
END: Final = 0x03
FULL: Final = 0x04
SUBSECTION: Final = 0x05
CONFIG: Final = 0x07
COMMAND: Final = 0x08
FOOTER: Final = 0x7E

COMMAND_PACKAGED: Final = 7
RAM_ID: Final = b"\x03ram\x00\x00\x00\x00\x00\x00\x00\x04"
"""Name, instance and version of RAM's START section, after the four bytes of its id."""

RAM_START: Final = re.compile(
    b"\x01.{4}" + re.escape(RAM_ID) + b".{6}[\x00\x10\x20\x30\x40\x50\x60\x70\x80\x90\xa0\xb0\xc0\xd0\xe0\xf0]\x04",
    re.DOTALL,
)
"""RAM's START section and the announcement of its size, whose flags are 004."""
RAM_START_BYTES: Final = 5 + len(RAM_ID) + 8

FILE_HEADER_BYTES: Final = 8
SECTION_BYTES: Final = 5
LITERAL_BYTES_MAX: Final = 64 * 1024
"""Bound of a configuration or a command: the latter's length has 16 bits."""
PACKAGED_BYTES_MAX: Final = 1 << 30
"""QEMU's MAX_VM_CMD_PACKAGED_SIZE is UINT32_MAX; a gigabyte of device state is none."""
SUBSECTIONS: Final = {b"configuration/target-page-bits": 4, b"configuration/uuid": 16}
PAGE_BITS: Final = 12


class ParserState(Enum):
    """The part of the stream that is expected next."""

    FILE_HEADER = auto()
    ITEM = auto()
    BLOCKS = auto()
    RECORDS = auto()
    SKIP = auto()
    SCAN = auto()
    TAIL = auto()


class MainChannel:
    """Steps over a main channel from its first byte. See `window.Machine`.

    Attributes:
        urgent: the guest is paused, or runs at the destination already.
        background: the latter: here come pages that the guest has not asked for, unless it asks on this connection.
    """

    def __init__(self, blocks: RamBlocks) -> None:
        self.records = RamRecords(blocks)
        self.urgent = False
        self.background = False
        self._blocks = blocks
        self._state = ParserState.FILE_HEADER
        self._ram_id: int | None = None
        self._ending = False
        self._postcopy = False
        self._iteration = 0
        self._left = 0
        self._events: list[Event] = []
        self._steps: dict[ParserState, Step] = {
            ParserState.FILE_HEADER: self._file_header,
            ParserState.ITEM: self._item,
            ParserState.BLOCKS: self._block,
            ParserState.RECORDS: self._record,
            ParserState.SKIP: self._skip,
            ParserState.SCAN: self._scan,
        }
        self._items: dict[int, Step] = {
            EOF: self._end_of_stream,
            START: self._section,
            PART: self._section,
            END: self._section,
            FULL: self._lost,
            SUBSECTION: self._subsection,
            CONFIG: self._config,
            COMMAND: self._command,
            FOOTER: self._footer,
        }

    @property
    def opaque(self) -> bool:
        """True behind RAM's last section: device state has no lengths, and nothing of RAM follows."""
        return self._state is ParserState.TAIL

    @property
    def unfinished(self) -> str:
        """See `window.Machine`; a whole stream ends behind its device state."""
        return "" if self.opaque else "the device state"

    def step(self, window: ParseWindow, position: int) -> int:
        """See `window.Machine`."""
        return self._steps[self._state](window, position)

    def take_events(self) -> list[Event]:
        """Take the events since the last call."""
        events, self._events = self._events, []
        return events

    def note_page_request(self) -> None:
        """Note that the other QEMU asked for a page: the guest runs there, even if the switch was not seen here."""
        if not self._postcopy:
            self._postcopy = self.urgent = self.background = True
            self._events.append(Postcopy())

    def _file_header(self, window: ParseWindow, position: int) -> int:
        return self._literal(window, position, FILE_HEADER_BYTES)

    def _literal(self, window: ParseWindow, position: int, size: int) -> int:
        """Take `size` literal bytes at once; an item is expected next."""
        if not window.has(position, size):
            return position
        window.builder.literal(size)
        self._state = ParserState.ITEM
        return position + size

    def _item(self, window: ParseWindow, position: int) -> int:
        if not window.has(position, 1):
            return position
        step = self._items.get(window.view[position])
        if step is None:
            raise Surprise(f"item of type {window.view[position]:#x}")
        return step(window, position)

    def _footer(self, window: ParseWindow, position: int) -> int:
        return self._literal(window, position, SECTION_BYTES)

    def _end_of_stream(self, window: ParseWindow, position: int) -> int:
        self._state = ParserState.TAIL
        return self._emit(window, position, 1)

    def _emit(self, window: ParseWindow, position: int, size: int) -> int:
        window.builder.literal(size)
        return position + size

    def _section(self, window: ParseWindow, position: int) -> int:
        if not window.has(position, SECTION_BYTES):
            return position
        kind, section = window.view[position], window.integer(position + 1, 4)
        if kind == START:
            return self._start(window, position, section)
        if section != self._ram_id:
            return self._lost(window, position)
        if kind == END and not self._postcopy and not self.urgent:
            self.urgent = True
            self._events.append(Switchover())
        self._ending = kind == END
        self._state = ParserState.RECORDS
        return self._emit(window, position, SECTION_BYTES)

    def _start(self, window: ParseWindow, position: int, section: int) -> int:
        size = SECTION_BYTES + len(RAM_ID)
        if not window.has(position, size):
            return position
        if window.bytes(position + SECTION_BYTES, len(RAM_ID)) != RAM_ID or self._ram_id is not None:
            return self._lost(window, position)
        self._ram_id = section
        self._state = ParserState.RECORDS
        return self._emit(window, position, size)

    def _lost(self, window: ParseWindow, position: int) -> int:
        """Something without a length: take its type byte and look for RAM."""
        self._state = ParserState.SCAN
        return self._emit(window, position, 1)

    def _config(self, window: ParseWindow, position: int) -> int:
        if not window.has(position, 5):
            return position
        return self._long(window, position, 5, window.integer(position + 1, 4))

    def _command(self, window: ParseWindow, position: int) -> int:
        if not window.has(position, 5):
            return position
        command, size = window.integer(position + 1, 2), window.integer(position + 3, 2)
        if command != COMMAND_PACKAGED:
            return self._long(window, position, 5, size)
        if not window.has(position, 9):
            return position
        if not self._postcopy:
            self._postcopy = self.urgent = True
            self._events.append(Postcopy())
        return self._long(window, position, 9, window.integer(position + 5, 4), PACKAGED_BYTES_MAX)

    def _long(self, window: ParseWindow, position: int, head: int, size: int, size_max: int = LITERAL_BYTES_MAX) -> int:
        """Take a head, and let `size` bytes after it be skipped."""
        if size > size_max:
            raise Surprise(f"an item of {size} bytes")
        self._left = size
        self._state = ParserState.SKIP if size else ParserState.ITEM
        return self._emit(window, position, head)

    def _skip(self, window: ParseWindow, position: int) -> int:
        count = min(self._left, window.end - position)
        self._left -= count
        if not self._left:
            self._state = ParserState.ITEM
            self.background = self._postcopy  # the packaged device state is through, or a command behind it
        return self._emit(window, position, count)

    def _subsection(self, window: ParseWindow, position: int) -> int:
        if not window.has(position, 2) or not window.has(position, 6 + window.view[position + 1]):
            return position
        name = window.bytes(position + 2, window.view[position + 1])
        head = 6 + len(name)
        fields = SUBSECTIONS.get(name)
        if fields is None:
            return self._lost(window, position)
        if not window.has(position, head + fields):
            return position
        if fields == 4 and window.integer(position + head, 4) != PAGE_BITS:  # noqa: PLR2004 - target-page-bits
            raise Surprise("pages are not of 4096 bytes")
        return self._literal(window, position, head + fields)

    def _record(self, window: ParseWindow, position: int) -> int:
        records = self.records
        after = records.step(window, position)
        if records.announced:
            self._left, records.announced = records.announced, 0
            self._events.append(RamTotal(self._left))
            self._state = ParserState.BLOCKS
        if records.ended:
            records.ended = False
            self._state = ParserState.TAIL if self._ending else ParserState.ITEM
        if not self._postcopy and records.passes >= self._iteration:
            self._iteration = records.passes + 1
            self._events.append(Iteration(self._iteration))
        return after

    def _block(self, window: ParseWindow, position: int) -> int:
        """One entry of the list of RAM blocks, or the extra word that some carry (a huge block's page size)."""
        if not window.has(position, 8):
            return position
        size = window.view[position]
        if not size:
            return self._extra_word(window, position)
        if not window.has(position, 1 + size + 8):
            return position
        used_bytes = window.integer(position + 1 + size, 8)
        if used_bytes > self._left or not self._blocks.announce(window.bytes(position + 1, size), used_bytes):
            raise Surprise("the list of RAM blocks does not add up")
        self._left -= used_bytes
        return self._emit(window, position, 1 + size + 8)

    def _extra_word(self, window: ParseWindow, position: int) -> int:
        """A block's page size, a power of two of pages; anything else is the first record behind the list."""
        word = window.integer(position, 8)
        if word and not word & 0xFFF:
            return self._emit(window, position, 8)
        if self._left:
            raise Surprise("a RAM block without a name")
        self._state = ParserState.RECORDS
        return self._record(window, position)

    def _scan(self, window: ParseWindow, position: int) -> int:
        """Take literal bytes up to where RAM surely begins again."""
        pattern, size = self._signature()
        found = pattern.search(window.view[position : window.end])
        if found is None:
            return self._emit(window, position, max(0, window.end - position - size + 1))
        self._state = ParserState.ITEM
        if found.start():
            return self._emit(window, position, found.start())
        return self._item(window, position)

    def _signature(self) -> tuple[re.Pattern[bytes], int]:
        """First bytes of RAM's next section, and their number."""
        if self._ram_id is None:
            return RAM_START, RAM_START_BYTES
        return re.compile(b"\x7e.{4}[\x02\x03]" + re.escape(self._ram_id.to_bytes(4, "big")), re.DOTALL), 10
