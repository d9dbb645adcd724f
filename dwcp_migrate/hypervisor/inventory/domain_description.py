"""Libvirt's description of a domain as placement's facts (pure).

It reads CPU, memory, media, networks, and what ties a domain to its host. A large fleet has tens of thousands of
descriptions, most of each about things that do not matter here: controllers are cut out of the text before it is
parsed, and a CPU with its many features, which most guests have in common, is parsed once.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final
from xml.etree import ElementTree as ET

import msgspec

from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.units import KIB, MIB

XML_BYTES_MAX: Final = 4 * MIB

CPUS_MAX: Final = 8192
"""Numbers of a host's CPUs that a pinned guest may name."""

HUGE_PAGE_BYTES: Final = 2 * MIB
"""Size of the huge pages of a guest that names no size: the usual default of x86-64."""


CPUS_KEPT: Final = 256
"""Different CPUs whose descriptions are remembered."""

Devices = Mapping[str, Sequence["ET.Element"]]
"""A domain's devices, by the names of their elements."""


class DiskFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A disk of a domain that has a medium.

    Attributes:
        target: as the domain knows it (`vda`); `device` is `disk`, `cdrom` or the like.
        kind: libvirt's type of source: `file`, `block`, `volume`, `network` and others.
        source: path, or the volume's name in `pool`.
        copied: by a migration that copies storage: it is a writable disk that is not shared.
    """

    target: str
    device: str = "disk"
    kind: str = "file"
    source: str = ""
    pool: str = ""
    copied: bool = True


class CpuFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The CPU that a guest was started with.

    Attributes:
        mode: `host-passthrough`, `maximum`, or `custom` (to which libvirt expands `host-model` of a running guest).
        model: its name, where there is one.
        text: libvirt's description: model, vendor and features, without the guest's own topology.
        arch: of the guest.
    """

    mode: str
    model: str = ""
    text: str = ""
    arch: str = ""

    @property
    def is_hosts_own(self) -> bool:
        """Whether the guest sees what its host's CPU offers, whatever that is."""
        return self.mode in {"host-passthrough", "maximum"}


class DomainFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A domain that runs, or is about to.

    Attributes:
        vcpus: that it may use, `memory_bytes` likewise.
        arriving: it is the second half of a migration to this host.
        migrating: it has a migration job on this host.
        persistent: it is defined on this host.
        cells: NUMA cells of the guest that are bound to the host's.
        cpu: of a guest that runs on the host's CPU; None for an emulated one.
        machine: its machine type.
        disks: those with a medium that the host must reach.
        networks: libvirt's networks that it is connected to; `bridges` and other interfaces of the host likewise.
        pinned_cpus: CPUs of the host that it is tied to, `pinned_cells` its NUMA cells.
        has_tpm: an emulated one, whose state libvirt carries along.
        huge_page_bytes: size of the pages that back its memory, 0 for normal ones.
        ties: what keeps it on its host, whatever the others are, in words.
        trouble: libvirt's own words where it could not be asked about it; then sizes may be missing (0).
    """

    name: str
    uuid: str
    vcpus: int = 0
    memory_bytes: int = 0
    arriving: bool = False
    migrating: bool = False
    persistent: bool = False
    cells: int = 0
    cpu: CpuFacts | None = None
    machine: str = ""
    disks: tuple[DiskFacts, ...] = ()
    networks: tuple[str, ...] = ()
    bridges: tuple[str, ...] = ()
    pinned_cpus: tuple[int, ...] = ()
    pinned_cells: tuple[int, ...] = ()
    has_tpm: bool = False
    huge_page_bytes: int = 0
    ties: tuple[str, ...] = ()
    trouble: str = ""


def domain_facts(description: str) -> DomainFacts:
    """Read what placement needs out of a domain's description.

    Raises:
        HypervisorError: not XML, too large, or a value that libvirt would not write.
    """
    _check_size(description)
    text, cpu = _without_cpu(_without_controllers(description))
    root = parsed(text)
    try:
        return _facts(root, cpu if cpu is not None else _guest_cpu(root.find("cpu")))
    except ValueError as error:
        raise HypervisorError(f"libvirt's description of {root.findtext('name', '')}: {error}") from error


def _without_controllers(text: str) -> str:
    """A description without its controllers, of which nothing is read."""
    kept, at = [], 0
    while (begin := text.find("<controller ", at)) >= 0:
        opened, end = text.find(">", begin), text.find("</controller>", begin)
        if end < 0:
            break
        kept.append(text[at:begin] if text[opened - 1] != "/" else text[at : opened + 1])
        at = end + len("</controller>") if text[opened - 1] != "/" else opened + 1
    return "".join([*kept, text[at:]]) if kept else text


def _without_cpu(text: str) -> tuple[str, CpuFacts | None]:
    """Take the one CPU out of a description; None where it cannot be told without parsing all which one that is."""
    begin, end = text.find("<cpu "), text.find("</cpu>")
    unique = text.count("<cpu ") == 1 == text.count("</cpu>") and "<cpu>" not in text
    if not unique or not text.rfind("</metadata>") < begin < end or "<!" in text:
        return text, None
    end += len("</cpu>")
    cpu = _remembered_cpu(text[begin:end])
    return (text, None) if cpu is None else (text[:begin] + text[end:], cpu)


@lru_cache(maxsize=CPUS_KEPT)
def _remembered_cpu(text: str) -> CpuFacts | None:
    """Read a CPU's description; None if it is none by itself."""
    try:
        return _guest_cpu(parsed(text))
    except HypervisorError:
        return None


def _facts(root: "ET.Element", cpu: CpuFacts) -> DomainFacts:
    kind = root.find("./os/type")
    machine, arch = (kind.get("machine", ""), kind.get("arch", "")) if kind is not None else ("", "")
    devices: dict[str, list[ET.Element]] = {}
    for one in root.find("devices") or ():
        devices.setdefault(one.tag, []).append(one)
    interfaces = devices.get("interface", [])
    return DomainFacts(
        name=root.findtext("name", ""),
        uuid=root.findtext("uuid", ""),
        vcpus=int(root.findtext("vcpu", "1")),
        memory_bytes=size(root.find("memory"), KIB),
        cells=len(root.findall("./numatune/memnode")),
        cpu=_judged_cpu(root, cpu, arch),
        machine=machine,
        disks=tuple(disk for one in devices.get("disk", ()) if (disk := _disk(one)) is not None),
        networks=tuple(sorted({_source(one, "network") for one in interfaces if one.get("type") == "network"} - {""})),
        bridges=tuple(
            sorted(
                {_source(one, "bridge") for one in interfaces if one.get("type") == "bridge"}
                | {_source(one, "dev") for one in interfaces if one.get("type") == "direct"} - {""}
            )
        ),
        pinned_cpus=_pinned_cpus(root),
        pinned_cells=_pinned_cells(root),
        has_tpm=_has_tpm(devices, "emulator"),
        huge_page_bytes=_huge_page_bytes(root),
        ties=tuple(_ties(devices)),
    )


def _has_tpm(devices: Devices, kind: str) -> bool:
    """Whether a TPM has a backend of a type."""
    return any(backend.get("type") == kind for one in devices.get("tpm", ()) for backend in one.iterfind("backend"))


def _guest_cpu(cpu: "ET.Element | None") -> CpuFacts:
    """Read a CPU; without a mode where there is none."""
    if cpu is None:
        return CpuFacts(mode="")
    mode = cpu.get("mode", "custom")
    return CpuFacts(mode=mode, model=cpu.findtext("model", ""), text=cpu_text(cpu, mode))


def _judged_cpu(root: "ET.Element", cpu: CpuFacts, arch: str) -> CpuFacts | None:
    if not cpu.mode or root.get("type") != "kvm":
        return None
    if cpu.mode == "custom" and not cpu.model:
        return None  # a topology only: the guest's CPU is QEMU's default
    return msgspec.structs.replace(cpu, arch=arch)


def cpu_text(cpu: "ET.Element", mode: str) -> str:
    """Describe a CPU by its model, vendor and features only, so that equal CPUs have equal descriptions.

    Args:
        cpu: the `cpu` element of a domain or of a host's capabilities.
        mode: `custom` keeps the element's `match`; any other mode has none.
    """
    plain = ET.Element(
        "cpu", {"mode": mode, "match": cpu.get("match", "exact")} if mode == "custom" else {"mode": mode}
    )
    plain.extend(ET.Element(part.tag, part.attrib) for part in cpu if part.tag in {"model", "vendor", "feature"})
    for copied, part in zip(plain, (one for one in cpu if one.tag in {"model", "vendor", "feature"}), strict=True):
        copied.text = (part.text or "").strip() or None
    return ET.tostring(plain, "unicode")


def _disk(disk: "ET.Element") -> DiskFacts | None:
    """A disk whose medium the host must reach; None for an empty drive, or one that may start without its medium."""
    source, target = disk.find("source"), disk.find("target")
    if source is None or (not source.attrib and not list(source)):
        return None
    device, kind = disk.get("device", "disk"), disk.get("type", "file")
    if device in {"cdrom", "floppy"} and source.get("startupPolicy") in {"optional", "requisite"}:
        return None
    path = next((source.get(name, "") for name in ("file", "dev", "volume", "dir", "name") if source.get(name)), "")
    kept = disk.find("readonly") is not None or disk.find("shareable") is not None
    return DiskFacts(
        target=target.get("dev", "") if target is not None else "",
        device=device,
        kind=kind,
        source=path,
        pool=source.get("pool", ""),
        copied=device == "disk" and not kept,
    )


def _source(device: "ET.Element", name: str) -> str:
    source = device.find("source")
    return source.get(name, "") if source is not None else ""


def _huge_page_bytes(root: "ET.Element") -> int:
    if root.find("./memoryBacking/hugepages") is None:
        return 0
    page = root.find("./memoryBacking/hugepages/page")
    return size(page, KIB, "size") if page is not None else HUGE_PAGE_BYTES


def _pinned_cpus(root: "ET.Element") -> tuple[int, ...]:
    vcpu = root.find("vcpu")
    sets = [vcpu.get("cpuset", "")] if vcpu is not None and vcpu.get("placement", "static") == "static" else []
    for name in ("vcpupin", "emulatorpin", "iothreadpin"):
        sets += [pin.get("cpuset", "") for pin in root.iterfind(f"./cputune/{name}")]
    return tuple(sorted({cpu for text in sets for cpu in numbers(text)}))


def _pinned_cells(root: "ET.Element") -> tuple[int, ...]:
    bound = [root.find("./numatune/memory"), *root.iterfind("./numatune/memnode")]
    strict = [one.get("nodeset", "") for one in bound if one is not None and one.get("mode", "strict") == "strict"]
    return tuple(sorted({cell for text in strict for cell in numbers(text)}))


def numbers(text: str) -> list[int]:
    """Read a list of numbers as libvirt writes it: `0-3,^2,8`; numbers past CPUS_MAX are refused.

    Raises:
        ValueError: it is none.
    """
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.removeprefix("^").partition("-")
        begin, end = int(first), int(last or first)
        if not 0 <= begin <= end < CPUS_MAX:
            raise ValueError(f"{part} is no range of CPUs")
        chosen = set(range(begin, end + 1))
        found = found - chosen if part.startswith("^") else found | chosen
    return sorted(found)


def _ties(devices: Devices) -> list[str]:
    """Reasons that keep a domain on its host, in words."""
    ties = [_device_words(one) for one in devices.get("hostdev", ()) if _is_tie(one)]
    ties += [
        "a network interface that is a device of the host"
        for one in devices.get("interface", ())
        if one.get("type") in {"hostdev", "vdpa"} and one.find("teaming") is None
    ]
    if any(one.get("role") != "master" for one in devices.get("shmem", ())):
        ties.append("shared memory with other guests of the host")
    shared = devices.get("filesystem", ())
    if any(one.find("driver[@type='virtiofs']") is not None for one in shared):
        ties.append("a directory of the host that it shares by virtiofs")
    if any(one.get("type") == "mount" and one.find("driver[@type='virtiofs']") is None for one in shared):
        ties.append("a directory of the host that it shares")
    if _has_tpm(devices, "passthrough"):
        ties.append("the host's own TPM")
    return ties


def _is_tie(hostdev: "ET.Element") -> bool:
    return hostdev.get("type") != "usb" and hostdev.find("teaming") is None


def _device_words(hostdev: "ET.Element") -> str:
    address = hostdev.find("./source/address")
    if hostdev.get("type") == "mdev":
        return (
            f"a vGPU or another mediated device of the host ({address.get('uuid', '') if address is not None else ''})"
        )
    if hostdev.get("type") == "pci" and address is not None:
        domain, bus, slot, function = (int(address.get(name, "0"), 0) for name in ("domain", "bus", "slot", "function"))
        return f"a passed-through PCI device of the host ({domain:04x}:{bus:02x}:{slot:02x}.{function:x})"
    return f"a passed-through {hostdev.get('type', '')} device of the host"


_UNITS: Final = {"b": 1, "bytes": 1, "KiB": KIB, "k": KIB, "MiB": MIB, "M": MIB, "GiB": 1024 * MIB, "G": 1024 * MIB}


def size(element: "ET.Element | None", default: int, attribute: str = "") -> int:
    """Read a size in bytes.

    Args:
        element: with the number and its `unit`; None is a size of 0.
        default: bytes of a number that has no unit.
        attribute: that holds the number; empty takes the element's text.

    Raises:
        ValueError: it is no number.
    """
    if element is None:
        return 0
    text = element.get(attribute, "0") if attribute else (element.text or "0")
    return int(text) * _UNITS.get(element.get("unit", ""), default)


def parsed(text: str) -> "ET.Element":
    """Parse a description.

    Raises:
        HypervisorError: not XML, or too large.
    """
    _check_size(text)
    try:
        return ET.fromstring(text)  # noqa: S314 - from the local libvirtd or a peer's, over its authenticated connection
    except ET.ParseError as error:
        raise HypervisorError(f"libvirt's description is no XML: {error}") from error


def _check_size(text: str) -> None:
    if len(text) > XML_BYTES_MAX:
        raise HypervisorError(f"a description of {len(text)} bytes is more than {XML_BYTES_MAX}")
