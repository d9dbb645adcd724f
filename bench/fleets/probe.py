"""Kernel: nothing but rule checks, to measure the cost of one."""

from dwcp_migrate.placement.arrays import Table, unpack
from dwcp_migrate.placement.kernel import compile_entry
from dwcp_migrate.placement.kernels.moves import rule_cost


@compile_entry("int64(table)")
def check_rules(table: Table) -> int:
    """Ask every rule of every item about every host.

    Returns:
        How many checks were made; the cost of the soft ones goes into the sum that keeps the compiler honest.
    """
    m, s = unpack(table)
    checks, total = 0, 0.0
    for v in range(m.demand.shape[0]):
        for k in range(m.rules_begin[v], m.rules_begin[v + 1]):
            for h in range(m.price.shape[1]):
                total += min(1.0, rule_cost(m, s, m.rules[k], v, h))
                checks += 1
    return checks if total >= 0.0 else -checks
