"""Faults of a real network, made on purpose: channels between agents that die.

The rule here: what is killed is drawn from a seed among what is there, so a failing run can be done again as far as the
network repeats itself.
"""

import math
import random

from dwcp_migrate.config import LinkConfig
from dwcp_migrate.lab.commands import run_program
from dwcp_migrate.lab.lab import Lab


def channels(lab: Lab, host: str) -> list[tuple[str, str]]:
    """Return the established channels of a host's migrations, without the agent's own control connections.

    Args:
        lab: with agents.
        host: its name.

    Returns:
        (local, peer) as `address:port`, in order.
    """
    agent = f"pid={lab.agents[host].process.pid},"
    port = LinkConfig().port
    wanted = ["state", "established", f"( dport = :{port} or sport = :{port} )"]
    listed = run_program(lab[host].namespace.beside(["ss", "-Htnp", *wanted])).stdout
    return sorted((line.split()[2], line.split()[3]) for line in listed.splitlines() if agent not in line)


def kill_channels(lab: Lab, host: str, share: float, *, seed: int) -> int:
    """Destroy channels of a host's migrations in its kernel, all at once; both ends see broken connections.

    It needs a kernel with CONFIG_INET_DIAG_DESTROY.

    Args:
        lab: with agents.
        host: in whose kernel.
        share: of the channels that are up, 1.0 for all; at least one.
        seed: of the choice.

    Returns:
        How many.
    """
    there = channels(lab, host)
    chosen = random.Random(seed).sample(there, math.ceil(share * len(there)))  # noqa: S311 - to be repeated, not guessed
    if chosen:
        ends = [local if peer.endswith(f":{LinkConfig().port}") else peer for local, peer in chosen]  # the dialling one
        wanted = " or ".join(f"( src {end} or dst {end} )" for end in ends)
        run_program(lab[host].namespace.beside(["ss", "-K", "-tn", f"( {wanted} )"]))
    return len(chosen)
