from dwcp_migrate import config
from dwcp_migrate.lab.hosts import agents, settings
from dwcp_migrate.lab.hosts.settings import SshKey


def test_every_host_resolves_all_hosts_and_has_its_own_uuid() -> None:
    addresses = {"hv1": "10.77.0.1", "hv2": "10.77.0.2"}
    files = settings.files("hv2", addresses, "11111111-2222", SshKey("private", "public"))
    assert files["etc/hostname"] == "hv2\n"
    assert "10.77.0.1\thv1\n" in files["etc/hosts"]
    assert "10.77.0.2\thv2\n" in files["etc/hosts"]
    assert 'host_uuid = "11111111-2222"' in files["etc/libvirt/libvirtd.conf"]
    assert "ListenAddress 10.77.0.2" in files["etc/ssh/sshd_config.d/lab.conf"]


def test_what_the_lab_writes_the_agent_reads() -> None:
    text = agents.toml(
        {
            "name": "hv1",
            "libvirt_uri": 'qemu:///system?socket=/a "quoted" \\ path',
            "peers": [
                {"name": "hv2", "addresses": ["10.77.0.2", "10.77.0.3"]},
                {"name": "hv3", "addresses": ["10.77.0.4"]},
            ],
            "link": {"channels": 8, "loss_s_max": 5.5},
            "policy": {"require_announcement": False},
        }
    )
    read = config.parse(text)
    assert read.libvirt_uri == 'qemu:///system?socket=/a "quoted" \\ path'
    assert [peer.addresses for peer in read.peers] == [["10.77.0.2", "10.77.0.3"], ["10.77.0.4"]]
    assert (read.link.channels, read.link.loss_s_max, read.policy.require_announcement) == (8, 5.5, False)
