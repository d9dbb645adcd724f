"""Examples of each command, as `--help`, the man pages and docs/cli.md show them.

They stand here together, so that one look compares them and one test parses every line.
"""

from typing import Final

import click

HEAD: Final = "\b\nExamples:\n"
"""The mark tells click to leave the lines as they are."""

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "abort": ("dwcp-migrate abort web1",),
    "agent": ("dwcp-migrate agent --config /etc/dwcp-migrate/agent.toml",),
    "cert csr": ("dwcp-migrate cert csr hv1.example.net --address 10.0.0.1",),
    "cert init": ("dwcp-migrate cert init", "dwcp-migrate cert init --directory fleet-ca --days 3650"),
    "cert issue": ("dwcp-migrate cert issue hv1.example.net --address 10.0.0.1",),
    "cert renew": ("dwcp-migrate cert renew hv1.example.net --days 365",),
    "cert show": ("dwcp-migrate cert show",),
    "cert sign": ("dwcp-migrate cert sign hv1.example.net hv1.example.net.csr",),
    "check": (
        "dwcp-migrate check hv2.example.net",
        "dwcp-migrate check hv2.example.net --seconds 10 --mebibytes 256 --channels 16",
        "dwcp-migrate check hv2.example.net --json | jq .verdict",
    ),
    "cluster add": ("dwcp-migrate cluster add hv4.example.net",),
    "cluster assign": ("dwcp-migrate cluster assign 5f0c12f6-8f31-4f38-a4c4-9a0e5b8f4c11 hv2.example.net",),
    "cluster export": ("dwcp-migrate cluster export fleet.dwcp",),
    "cluster forget-domain": ("dwcp-migrate cluster forget-domain 5f0c12f6-8f31-4f38-a4c4-9a0e5b8f4c11",),
    "cluster forget-host": ("dwcp-migrate cluster forget-host hv9.example.net",),
    "cluster import": ("dwcp-migrate cluster import fleet.dwcp",),
    "cluster key": ("dwcp-migrate cluster key",),
    "cluster limits": ("dwcp-migrate cluster limits", "dwcp-migrate cluster limits --outgoing 2 --incoming 2"),
    "cluster members": ("dwcp-migrate cluster members",),
    "cluster pbft assign": ("dwcp-migrate cluster pbft assign 5f0c12f6-8f31-4f38-a4c4-9a0e5b8f4c11 hv2.example.net",),
    "cluster pbft propose": ("dwcp-migrate cluster pbft propose --remove hv9.example.net",),
    "cluster raise-version": ("dwcp-migrate cluster raise-version",),
    "cluster remove": ("dwcp-migrate cluster remove hv4.example.net",),
    "cluster set-time": ("dwcp-migrate cluster set-time",),
    "cluster status": ("dwcp-migrate cluster status", "dwcp-migrate cluster status --json | jq .hosts"),
    "cluster transfer-leader": ("dwcp-migrate cluster transfer-leader hv2.example.net",),
    "config check": ("dwcp-migrate config check", "dwcp-migrate config check --deep"),
    "config diff": ("dwcp-migrate config diff",),
    "config show": ("dwcp-migrate config show --defaults",),
    "cordon": ("dwcp-migrate cordon --wait --timeout 600",),
    "demo": ("dwcp-migrate demo", "dwcp-migrate demo --rate 100mbit --rtt 20ms --output demo.json"),
    "disable": ('dwcp-migrate disable --reason "ticket 4711: the new switch first"',),
    "doctor": ("dwcp-migrate doctor", "dwcp-migrate doctor --quiet"),
    "drain": (
        "dwcp-migrate drain hv1.example.net --dry-run",
        "dwcp-migrate drain hv1.example.net && reboot",
        "dwcp-migrate drain hv1.example.net --at-once 2 --postcopy",
        "dwcp-migrate drain hv1.example.net --warm --warm-rate 200Mbit/s",
        "dwcp-migrate drain hv1.example.net --at 22:00",
    ),
    "enable": ("dwcp-migrate enable",),
    "events": (
        "dwcp-migrate events",
        "dwcp-migrate events --json | jq --unbuffered 'select(.migration.result)' | head -n 1",
    ),
    "explain": ("dwcp-migrate drain hv1.example.net --dry-run --json > plan.json", "dwcp-migrate explain plan.json"),
    "history": (
        "dwcp-migrate history --since 7d --failed",
        "dwcp-migrate history --domain web1 --csv > web1.csv",
    ),
    "hosts": ("dwcp-migrate hosts",),
    "lab ask": ("dwcp-migrate lab ask hv1 status",),
    "lab down": ("dwcp-migrate lab down",),
    "lab guest": ("dwcp-migrate lab guest hv1 --memory 256 --dirty 20",),
    "lab migrate": ("dwcp-migrate lab migrate hv1 hv2",),
    "lab prepare": ("dwcp-migrate lab prepare",),
    "lab run": ("dwcp-migrate lab run hv1 virsh list",),
    "lab shell": ("dwcp-migrate lab shell hv1",),
    "lab status": ("dwcp-migrate lab status",),
    "lab up": ("dwcp-migrate lab up --agents", "dwcp-migrate lab up --agents --rate 100mbit --rtt 20ms"),
    "lab wan cut": ("dwcp-migrate lab wan cut",),
    "lab wan heal": ("dwcp-migrate lab wan heal",),
    "lab wan set": ("dwcp-migrate lab wan set --rate 100mbit --rtt 80ms --loss 1%",),
    "lab wan show": ("dwcp-migrate lab wan show",),
    "limit": (
        "dwcp-migrate limit",
        "dwcp-migrate limit hv2.example.net 200Mbit/s",
        "dwcp-migrate limit hv2.example.net 25MB/s --for 8h",
        "dwcp-migrate limit hv2.example.net off",
    ),
    "locks acquire": ("dwcp-migrate locks acquire backup --lifetime 600",),
    "locks release": ("dwcp-migrate locks release backup 4711",),
    "locks reserve": ("dwcp-migrate locks reserve night hv1.example.net hv2.example.net 200",),
    "locks unreserve": ("dwcp-migrate locks unreserve night 4711",),
    "migrate": (
        "dwcp-migrate migrate web1 --dry-run",
        "dwcp-migrate migrate web1 hv2.example.net",
        "dwcp-migrate migrate web1 hv2.example.net --postcopy --timeout 300",
        "dwcp-migrate migrate web1 hv2.example.net --warm --warm-for 10min",
    ),
    "place": (
        "dwcp-migrate place web1",
        "dwcp-migrate place new1 new2 --vcpus 4 --memory-mib 8192 --apart",
    ),
    "plan abort": ("dwcp-migrate plan abort 12",),
    "plan pause": ("dwcp-migrate plan pause 12",),
    "plan resume": ("dwcp-migrate plan resume 12",),
    "plan show": ("dwcp-migrate plan show 12 --follow",),
    "plans": ("dwcp-migrate plans",),
    "predict": ("dwcp-migrate predict web1 --to hv2.example.net",),
    "rebalance": (
        "dwcp-migrate rebalance",
        "dwcp-migrate rebalance --apply",
        "dwcp-migrate rebalance --watch observe",
    ),
    "record": ("dwcp-migrate record web1", "dwcp-migrate record --cancel"),
    "reload": ("dwcp-migrate reload",),
    "replay": ("dwcp-migrate replay /var/lib/dwcp-migrate/recordings/web1.stream --codec zstd --level 3",),
    "report": (
        "dwcp-migrate report web1 --html web1.html",
        "dwcp-migrate report --fleet --since 30d",
        "dwcp-migrate report --fleet --since 2026-11-01 --html november.html",
    ),
    "rules add": (
        "dwcp-migrate rules add databases apart db1 db2 --level rack",
        "dwcp-migrate rules add web together web1 cache1 --soft 2",
    ),
    "rules list": ("dwcp-migrate rules list",),
    "rules remove": ("dwcp-migrate rules remove databases",),
    "schema": ("dwcp-migrate schema > commands.json", "dwcp-migrate schema --api > openapi.json"),
    "share": ("dwcp-migrate share web1 --weight 4",),
    "show": ("dwcp-migrate show web1", "dwcp-migrate show 3f2a --events"),
    "status": ("dwcp-migrate status", "dwcp-migrate status --json | jq .peers_up"),
    "store add": ("dwcp-migrate store add /var/lib/libvirt/images/debian-13.qcow2 --scope web",),
    "store remove": ("dwcp-migrate store remove --image /var/lib/libvirt/images/debian-13.qcow2",),
    "store status": ("dwcp-migrate store status",),
    "store verify": ("dwcp-migrate store verify",),
    "store wipe": ("dwcp-migrate store wipe",),
    "sysdump": ("dwcp-migrate sysdump --output /tmp/hv1.tar.gz",),
    "tickets fail": ("dwcp-migrate tickets fail 4711",),
    "top": ("dwcp-migrate top", "dwcp-migrate top --interval 0.5 --count 10"),
    "train": ("dwcp-migrate train --model lstm-small --epochs 20",),
    "uncordon": ("dwcp-migrate uncordon",),
    "undrain": ("dwcp-migrate undrain hv1.example.net",),
    "warm": (
        "dwcp-migrate warm web1 --to hv2.example.net",
        "dwcp-migrate warm web1 --to hv2.example.net --rate 50Mbit/s --for 2h",
    ),
}
"""Words of a command, without those of the groups' own; its lines."""


def add_examples(command: click.Command, words: str) -> None:
    """Give a command its examples, or each of a group's commands theirs.

    Args:
        command: as its module defines it.
        words: that it is called by.
    """
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            add_examples(below, f"{words} {name}")
    elif words in EXAMPLES:
        command.epilog = HEAD + "\n".join(f"  {line}" for line in EXAMPLES[words]) + "\n"
