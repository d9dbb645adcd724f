"""Small fleets by hand."""

from typing import Any

import numpy as np

from dwcp_migrate.placement.fleet import Domain, Fleet, Host, Rule


def host(name: str, vcpus: float = 16, memory: float = 65536, **more: Any) -> Host:
    return Host(name=name, capacity={"vcpus": vcpus, "memory_mib": memory}, **more)


def domain(name: str, where: str = "", vcpus: float = 2, memory: float = 4096, **more: Any) -> Domain:
    return Domain(name=name, host=where, demand={"vcpus": vcpus, "memory_mib": memory}, **more)


def fleet(hosts: list[Host], domains: list[Domain], *rules: Rule, **more: Any) -> Fleet:
    return Fleet(hosts=hosts, domains=domains, rules=list(rules), **more)


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))
