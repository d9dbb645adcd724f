"""Facts out of libvirt's descriptions, and libvirt's own test driver behind the real connection."""

import libvirt
import pytest

from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.hypervisor.inventory import libvirt_hypervisors
from dwcp_migrate.hypervisor.inventory.domain_description import CpuFacts
from dwcp_migrate.hypervisor.inventory.hypervisors import GuestId, JobFacts
from dwcp_migrate.hypervisor.inventory.libvirt_hypervisors import (
    LibvirtHypervisors,
    cpu_refusal,
    job_facts,
    read_domains,
)
from dwcp_migrate.hypervisor.inventory.migration_options import MigrationOptions
from dwcp_migrate.units import GIB, MIB

DOMAIN = "<domain><name>web1</name><memory unit='KiB'>2097152</memory></domain>"


def test_the_test_driver_answers_through_the_real_connection() -> None:
    asked = LibvirtHypervisors()
    try:
        host = asked.host("test:///default")
        assert host.cpus > 0
        assert host.memory_bytes > MIB
        assert "default" in host.networks
        assert [one.name for one in asked.domains("test:///default")] == ["test"]
        with pytest.raises(HypervisorError, match="not found"):
            asked.migrate("test:///default", GuestId("ghost"), "test:///default", MigrationOptions())
    finally:
        asked.close()


def test_a_host_that_cannot_be_reached_is_said() -> None:
    asked = LibvirtHypervisors()
    with pytest.raises(HypervisorError, match="test:///nowhere"):
        asked.host("test:///nowhere/at/all")


class ListedDomain:
    """A libvirt domain that answers what it is told to, as the binding would."""

    def __init__(self, job: int | libvirt.libvirtError, *, active: bool = True, text: str = DOMAIN) -> None:
        self._job, self._active, self._text = job, active, text

    def name(self) -> str:
        return "web1"

    def UUIDString(self) -> str:  # noqa: N802 - libvirt's name
        return "8f3c1d6e-0000-4000-8000-000000000001"

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802
        return self._text

    def jobInfo(self) -> list[int]:  # noqa: N802
        if isinstance(self._job, libvirt.libvirtError):
            raise self._job
        return [self._job]

    def isActive(self) -> bool:  # noqa: N802
        return self._active

    def isPersistent(self) -> bool:  # noqa: N802
        return True


class Listing:
    """A libvirt connection with some domains."""

    def __init__(self, *domains: ListedDomain) -> None:
        self._domains = domains

    def listAllDomains(self, _flags: int) -> list[ListedDomain]:  # noqa: N802
        return list(self._domains)


def refused(code: int, words: str) -> libvirt.libvirtError:
    """The error that libvirt's binding raises, with a code and its words."""
    error = libvirt.libvirtError(words)
    error.args = (words,)  # the binding takes the words of the thread's last error
    error.err = (code, 10, words, 2, "", None, None, -1, -1)
    return error


def test_a_domain_that_hangs_is_listed_with_libvirt_s_words() -> None:
    hung = refused(libvirt.VIR_ERR_OPERATION_TIMEOUT, "cannot acquire state change lock (held by monitor)")
    (facts,) = read_domains(Listing(ListedDomain(hung)))
    assert (facts.name, facts.memory_bytes) == ("web1", 2 * GIB)
    assert "cannot acquire state change lock" in facts.trouble


def test_a_domain_whose_description_is_nonsense_is_listed_with_its_trouble() -> None:
    (facts,) = read_domains(Listing(ListedDomain(0, text="<domain")))
    assert (facts.name, facts.memory_bytes, "no XML" in facts.trouble) == ("web1", 0, True)


@pytest.mark.parametrize("code", [libvirt.VIR_ERR_OPERATION_UNSUPPORTED, libvirt.VIR_ERR_OPERATION_INVALID])
def test_a_domain_that_arrives_is_told_by_either_code_that_libvirt_has_for_it(code: int) -> None:
    (facts,) = read_domains(Listing(ListedDomain(refused(code, "statistics are available only on the source host"))))
    assert (facts.arriving, facts.trouble) == (True, "")


def test_a_domain_that_went_away_while_it_was_read_is_left_out() -> None:
    gone = refused(libvirt.VIR_ERR_NO_DOMAIN, "Domain not found")
    ended = refused(libvirt.VIR_ERR_OPERATION_INVALID, "domain is not running")
    assert read_domains(Listing(ListedDomain(gone), ListedDomain(ended, active=False))) == []


def test_more_domains_than_there_may_be_are_refused_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libvirt_hypervisors, "DOMAINS_MAX", 2)
    assert len(read_domains(Listing(ListedDomain(0), ListedDomain(0)))) == 2
    with pytest.raises(HypervisorError, match="3 domains on one host are more than 2"):
        read_domains(Listing(*[ListedDomain(0)] * 3))


def test_a_job_s_statistics_are_read() -> None:
    stats = {
        "type": 2, "memory_iteration": 4, "memory_bps": 1000, "memory_dirty_rate": 3, "memory_page_size": 4096,
        "data_remaining": 77,
    }  # fmt: skip
    assert job_facts(stats) == JobFacts(passes=4, remaining_bytes=77, bytes_per_s=1000, dirty_bytes_per_s=12288)
    assert job_facts({"type": 0}) is None


class Comparing:
    """A libvirt connection that compares CPUs as it is told to.

    Args:
        by_hypervisor: what `compareHypervisorCPU` comes to; `by_host` what `compareCPU` does.
    """

    def __init__(self, by_hypervisor: int | libvirt.libvirtError, by_host: int | libvirt.libvirtError = 2) -> None:
        self._by_hypervisor, self._by_host = by_hypervisor, by_host

    def compareHypervisorCPU(self, *_: object) -> int:  # noqa: N802 - libvirt's name
        return answered(self._by_hypervisor)

    def compareCPU(self, *_: object) -> int:  # noqa: N802
        return answered(self._by_host)


def answered(answer: int | libvirt.libvirtError) -> int:
    if isinstance(answer, libvirt.libvirtError):
        raise answer
    return answer


# As libvirt 11.3 said on a host with an AMD CPU of another generation.
MISSING = "the CPU is incompatible with host CPU: Host CPU does not provide required features: "
MILAN = "pku, svm, perfctr_core, wbnoinvd, ibpb, ibrs, amd-stibp, amd-ssbd, npt, nrip-save, svme-addr-chk"
NO_KVM = refused(libvirt.VIR_ERR_INVALID_ARG, "invalid argument: the accel 'kvm' is not supported on this host")


def test_what_a_cpu_lacks_is_said_in_libvirt_s_words_and_a_long_list_is_cut() -> None:
    cpu = CpuFacts(mode="custom", model="EPYC-Milan", text="<cpu/>")
    few = refused(libvirt.VIR_ERR_CPU_INCOMPATIBLE, MISSING + "svm")
    assert cpu_refusal(Comparing(few), cpu) == MISSING + "svm"
    many = refused(libvirt.VIR_ERR_CPU_INCOMPATIBLE, MISSING + MILAN)
    assert cpu_refusal(Comparing(many), cpu) == (
        MISSING + "pku, svm, perfctr_core, wbnoinvd, ibpb, ibrs, amd-stibp, amd-ssbd and 3 more"
    )
    assert cpu_refusal(Comparing(2), cpu) == ""


def test_where_the_hypervisor_cannot_compare_the_host_s_cpu_is_compared() -> None:
    cpu = CpuFacts(mode="custom", model="qemu64", text="<cpu/>")
    assert cpu_refusal(Comparing(NO_KVM, 2), cpu) == ""
    lacking = refused(libvirt.VIR_ERR_CPU_INCOMPATIBLE, MISSING + "svm")
    assert cpu_refusal(Comparing(NO_KVM, lacking), cpu) == MISSING + "svm"


def test_a_comparison_that_fails_is_no_answer() -> None:
    broken = refused(libvirt.VIR_ERR_INTERNAL_ERROR, "Unknown CPU model GraniteRapids")
    with pytest.raises(libvirt.libvirtError, match="GraniteRapids"):
        cpu_refusal(Comparing(broken), CpuFacts(mode="custom", model="GraniteRapids", text="<cpu/>"))
