"""One of QEMU's connections, cut into runs of bytes whose pages are known.

The rule: every byte that is fed comes back in exactly one cut, in order; parsing only finds the pages in them. Nothing
raises: bytes that are not understood make the rest of the connection opaque, with a reason.

    parser = StreamParser(RamBlocks())          # one RamBlocks for all connections of a migration
    fed = parser.feed(view)                     # cuts for all complete elements
    ... send view[cut.begin:cut.end] for each cut of fed.cuts; offer view[fed.consumed:] again, with more behind it
    parser.feed(view, flush=True)               # consume everything, also half a record

Half a record that had to go out is remembered (at most `ELEMENT_BYTES_MAX` bytes), so that parsing goes on where the
record ends; its page is literal then. Cuts do not exceed `segment_bytes_max`.
"""

from dataclasses import dataclass
from typing import Final

from dwcp_migrate.qemu.blocks import RamBlocks
from dwcp_migrate.qemu.events import Event, Opaque
from dwcp_migrate.qemu.layout import Cut, LayoutBuilder
from dwcp_migrate.qemu.main import MainChannel
from dwcp_migrate.qemu.multifd import MultifdChannel
from dwcp_migrate.qemu.sniff import NBD_GREETING, SNIFF_BYTES, StreamKind, is_nbd_greeting, sniff
from dwcp_migrate.qemu.window import ELEMENT_BYTES_MAX, ParseWindow, Surprise, window
from dwcp_migrate.units import KIB, MIB

SEGMENT_BYTES_MAX: Final = 2 * MIB
"""Largest cut unless the caller says otherwise. See docs/hde.md for its effect on the ratio."""
SEGMENT_BYTES_MIN: Final = 64 * KIB
"""Smallest bound that may be asked for; it must hold any element."""


@dataclass(frozen=True, slots=True)
class Fed:
    """Result of a call of `feed`.

    Attributes:
        cuts: contiguous from 0 to `consumed`.
        consumed: bytes that must not be offered again.
    """

    cuts: list[Cut]
    consumed: int


class StreamParser:
    """Parser of one connection in its forward direction, without input or output.

    Attributes:
        kind: of the connection, UNKNOWN until `SNIFF_BYTES` came.
        opaque_reason: why nothing is parsed any more, or empty.
        events: noticed and not yet taken.
    """

    def __init__(self, blocks: RamBlocks, *, segment_bytes_max: int = SEGMENT_BYTES_MAX) -> None:
        if segment_bytes_max < SEGMENT_BYTES_MIN:
            raise ValueError(f"segment_bytes_max is {segment_bytes_max}, at least {SEGMENT_BYTES_MIN}")
        self.kind: StreamKind = StreamKind.UNKNOWN
        self.opaque_reason = ""
        self.events: list[Event] = []
        self._blocks = blocks
        self._segment_bytes_max = segment_bytes_max
        self._machine: MainChannel | MultifdChannel | None = None
        self._begun = b""  # head of an element whose bytes are in earlier cuts
        self._reverse = b""

    @property
    def pages(self) -> int:
        """Pages seen so far, however the stream was cut."""
        machine = self._machine
        return machine.records.pages if isinstance(machine, MainChannel) else machine.pages if machine else 0

    @property
    def zero_pages(self) -> int:
        """Zero pages seen so far, however the stream was cut."""
        machine = self._machine
        return machine.records.zero_pages if isinstance(machine, MainChannel) else machine.zero_pages if machine else 0

    @property
    def urgent(self) -> bool:
        """True while nothing may wait to be batched: the guest is paused or already runs at the destination."""
        return self._machine is not None and self._machine.urgent

    @property
    def background(self) -> bool:
        """True once the guest runs at the destination and this connection brings pages that it did not ask for."""
        return isinstance(self._machine, MainChannel) and self._machine.background

    @property
    def unfinished(self) -> str:
        """Part that is missing if the connection ends here; empty where it may end, or where nobody can tell."""
        if self.opaque_reason:
            return ""
        if self._machine is None:
            return "the bytes that say what it is"
        return "the rest of a record" if self._begun else self._machine.unfinished

    def take_events(self) -> list[Event]:
        """Take the events since the last call."""
        events, self.events = self.events, []
        return events

    def observe_reverse(self, data: bytes) -> None:
        """Show the first bytes against the direction: an NBD server greets before its client speaks."""
        if self.kind is not StreamKind.UNKNOWN or len(self._reverse) >= len(NBD_GREETING):
            return
        self._reverse += bytes(data[: len(NBD_GREETING)])
        if is_nbd_greeting(self._reverse):
            self._end_parsing(StreamKind.NBD, "a disk copy")

    def note_page_request(self) -> None:
        """Note that the return path asked for a page: this connection's guest runs at the destination."""
        if isinstance(self._machine, MainChannel):
            self._machine.note_page_request()

    def feed(self, data: memoryview | bytes, *, flush: bool = False) -> Fed:
        """Cut `data`, which begins where the last call's `consumed` ended.

        Args:
            data: contiguous bytes; cuts refer to positions in it.
            flush: consume everything, also an element that is not complete.
        """
        view = memoryview(data)
        cuts: list[Cut] = []
        position = self._resume(view, cuts, flush=flush)
        if position is None:
            return Fed(cuts, cuts[-1].end if cuts else 0)
        while position < len(view):
            after = self._cut(view, position, cuts)
            if after == position:
                break
            position = after
        if flush and position < len(view):
            self._begun = bytes(view[position:])
            self._literal_cut(cuts, position, len(view))
            position = len(view)
        return Fed(cuts, position)

    def _resume(self, view: memoryview, cuts: list[Cut], *, flush: bool) -> int | None:
        """Finish an element whose head went out earlier; None: it still is not complete, `view` is dealt with."""
        head = len(self._begun)
        if not head:
            return 0
        joined = memoryview(self._begun + bytes(view[:ELEMENT_BYTES_MAX]))
        known = self._machine is not None or self._sniff(joined)
        position = self._step_past(joined, head) if known else 0
        if self.opaque_reason or position >= head:
            self._begun = b""
            after = max(position - head, 0)
            if after:
                self._literal_cut(cuts, 0, after)
            return after
        self._begun = self._begun[position:]
        if flush and len(view):
            self._begun += bytes(view)
            self._literal_cut(cuts, 0, len(view))
        return None

    def _step_past(self, joined: memoryview, head: int) -> int:
        """Step over elements that begin inside the first `head` bytes; returns the position reached."""
        position = 0
        scratch = window(joined, 0, len(joined), single=True)
        while position < head and not self.opaque_reason:
            after = self._step(scratch, position)
            if after == position:
                break
            position = after
        return position

    def _cut(self, view: memoryview, begin: int, cuts: list[Cut]) -> int:
        """Add one cut from `begin` on; returns its end, `begin` if nothing is complete."""
        end = min(len(view), begin + self._segment_bytes_max)
        if self._machine is None and not self.opaque_reason and not self._sniff(view[begin:]):
            return begin
        if self._machine is None or self.opaque_reason:
            cuts.append(Cut(begin, end, None, self.urgent, self.background))
            return end
        bounds = window(view, begin, end)
        background = self.background
        position = self._run(bounds, begin)
        if position > begin:
            cuts.append(Cut(begin, position, bounds.builder.build(), self.urgent, background))
            return position
        return self._cut(view, begin, cuts) if self.opaque_reason else begin

    def _run(self, bounds: ParseWindow, position: int) -> int:
        """Step to the end of the complete elements, or to where the urgency changes."""
        before = self.urgent, self.background
        while position < bounds.end:
            after = self._step(bounds, position)
            if after == position or self.opaque_reason or (self.urgent, self.background) != before:
                return after
            position = after
        return position

    def _step(self, bounds: ParseWindow, position: int) -> int:
        machine = self._machine
        if machine is None:
            return position
        try:
            after = machine.step(bounds, position)
        except Surprise as surprise:
            self._end_parsing(self.kind, str(surprise))
            return position
        self.events += machine.take_events()
        if machine.opaque:
            self.opaque_reason = "device state"
        return after

    def _sniff(self, view: memoryview) -> bool:
        """Choose the machine by the first bytes. False: too few yet."""
        kind = sniff(bytes(view[:SNIFF_BYTES]))
        if kind is StreamKind.UNKNOWN:
            return False
        self.kind = kind
        if kind is StreamKind.MAIN:
            self._machine = MainChannel(self._blocks)
        elif kind is StreamKind.MULTIFD:
            self._machine = MultifdChannel(self._blocks)
        else:
            self._end_parsing(kind, "TLS" if kind is StreamKind.TLS else "no known magic number")
        return True

    def _literal_cut(self, cuts: list[Cut], begin: int, end: int) -> None:
        """Add bytes whose pages, if any, are not known."""
        builder = LayoutBuilder()
        builder.literal(end - begin)
        cuts.append(Cut(begin, end, builder.build(), self.urgent, self.background))

    def _end_parsing(self, kind: StreamKind, reason: str) -> None:
        self.kind = kind
        self.opaque_reason = reason
        self.events.append(Opaque(reason))
