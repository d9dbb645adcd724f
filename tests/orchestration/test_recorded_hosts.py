"""CPUs of real KVM hosts: what libvirt makes of them for guests, read from its own form, and which guests may go where.

Recorded are model, vendor and features that libvirt computed from QEMU's answers on these machines (its published test
data says so); the text around them is ours. Which CPU is a superset of which is judged here by a stand-in for libvirt's
comparison, in its words: the lab has no KVM, its guests are emulated and run anywhere.
"""

import re
from typing import Final, NamedTuple

import pytest

from dwcp_migrate.hypervisor.inventory.domain_description import CpuFacts, DomainFacts, domain_facts
from dwcp_migrate.hypervisor.inventory.host_description import HostFacts, hypervisor_cpu
from dwcp_migrate.orchestration.compatibility import Compatibility
from dwcp_migrate.orchestration.storage import StorageMap
from dwcp_migrate.units import GIB


class Recorded(NamedTuple):
    """A machine's CPU as libvirt offers it to guests."""

    model: str
    vendor: str
    requires: tuple[str, ...]
    disables: tuple[str, ...] = ()

    def features(self) -> str:
        listed = [(name, "require") for name in self.requires] + [(name, "disable") for name in self.disables]
        return "".join(f"<feature policy='{policy}' name='{name}'/>" for name, policy in listed)

    def capabilities(self) -> str:
        """Domain capabilities of a host with this CPU."""
        return f"""<domainCapabilities><arch>x86_64</arch><cpu><mode name='host-passthrough' supported='yes'/>
<mode name='host-model' supported='yes'><model fallback='forbid'>{self.model}</model><vendor>{self.vendor}</vendor>
{self.features()}</mode></cpu></domainCapabilities>"""

    def guest(self) -> str:
        """A guest that was started there with host-model."""
        return f"""<domain type='kvm'><name>vm</name><os><type arch='x86_64'>hvm</type></os>
<cpu mode='custom' match='exact' check='full'><model fallback='forbid'>{self.model}</model>
<vendor>{self.vendor}</vendor>{self.features()}</cpu></domain>"""


HOSTS: Final = {
    "Xeon Platinum 8268": Recorded("Cascadelake-Server", "Intel", (
        "ss", "hypervisor", "tsc_adjust", "umip", "pku", "xsaves",
    )),
    "Xeon Gold 6148": Recorded("Skylake-Client", "Intel", (
        "ss", "hypervisor", "tsc_adjust", "avx512f", "avx512dq", "clflushopt", "avx512cd", "avx512bw", "avx512vl",
        "pdpe1gb",
    )),
    "EPYC 7601": Recorded("Opteron_G5", "AMD", (
        "vme", "x2apic", "movbe", "tsc-deadline", "rdrand", "hypervisor", "arat", "fsgsbase", "tsc_adjust", "bmi1",
        "avx2", "smep", "bmi2", "rdseed", "adx", "smap", "clflushopt", "xsaveopt", "xsavec", "xgetbv1", "mmxext",
        "fxsr_opt", "cmp_legacy", "cr8legacy", "osvw",
    ), ("svm", "xop", "fma4", "tbm")),
}  # fmt: skip
NAMES: Final = tuple(HOSTS)


def offered(name: str, without: str = "") -> CpuFacts:
    """The CPU that a recorded host offers, as it is read; perhaps without a feature, as after a microcode update."""
    one = HOSTS[name]
    cpu, _ = hypervisor_cpu(one._replace(requires=tuple(f for f in one.requires if f != without)).capabilities())
    assert cpu is not None
    return cpu


def required(cpu: CpuFacts) -> set[str]:
    return set(re.findall('policy="require" name="([^"]+)"', cpu.text))


def why_not(cpu: CpuFacts, source: CpuFacts, destination: CpuFacts) -> str:
    """Judge whether a guest with a CPU may go from one host to another; empty when it may."""
    hosts = {name: HostFacts(cpus=64, memory_bytes=GIB, cpu=one) for name, one in (("a", source), ("b", destination))}

    def refusal(host: str, wanted: CpuFacts) -> str:
        own = hosts[host].cpu
        assert own is not None
        if own.model != wanted.model:
            return "the CPU is incompatible with host CPU: Host CPU vendor or model does not match"
        lacks = sorted(required(wanted) - required(own))
        words = "the CPU is incompatible with host CPU: Host CPU does not provide required features"
        return f"{words}: {', '.join(lacks)}" if lacks else ""

    judged = Compatibility(hosts, StorageMap(hosts, ()), refusal)
    return judged.bars.get(judged.judge("a", DomainFacts(name="vm", uuid="1", cpu=cpu)), {}).get("b", "")


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_host_offers_its_model_and_all_its_features(name: str) -> None:
    cpu, one = offered(name), HOSTS[name]
    assert (cpu.mode, cpu.model, cpu.arch) == ("custom", one.model, "x86_64")
    assert required(cpu) == set(one.requires)
    assert all(f'<feature policy="disable" name="{feature}" />' in cpu.text for feature in one.disables)


@pytest.mark.parametrize("name", NAMES)
def test_a_host_model_guest_goes_between_equal_hosts_and_not_to_another_kind(name: str) -> None:
    cpu = domain_facts(HOSTS[name].guest()).cpu
    assert cpu is not None
    assert why_not(cpu, offered(name), offered(name)) == ""
    other = next(one for one in NAMES if one != name)
    assert why_not(cpu, offered(name), offered(other)).startswith(f"its CPU does not offer {HOSTS[name].model}: ")


@pytest.mark.parametrize("mode", ["host-passthrough", "maximum"])
@pytest.mark.parametrize("name", NAMES)
def test_a_guest_with_its_host_s_own_cpu_needs_all_of_it_at_the_destination(mode: str, name: str) -> None:
    cpu = CpuFacts(mode=mode)
    assert why_not(cpu, offered(name), offered(name)) == ""
    assert why_not(cpu, offered(name, without="tsc_adjust"), offered(name)) == ""
    lacking = why_not(cpu, offered(name), offered(name, without="tsc_adjust"))
    assert lacking.endswith(f"does not offer {HOSTS[name].model}: the CPU is incompatible with host CPU: Host CPU does "
                            "not provide required features: tsc_adjust")  # fmt: skip
    assert all("does not offer" in why_not(cpu, offered(name), offered(one)) for one in NAMES if one != name)
