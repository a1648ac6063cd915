"""Faults of a site's wire, made by the kernel: down, lossy, silent, rejecting, cut short, slow.

The relay hurts connections; these hurt packets, so that nobody is told and the programs' own
kernels must find out. Only where agents have network namespaces.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.faults.kills import Hurt, Injection
from tests.faults.namespaces import FAR, Namespace, run
from tests.faults.plan import Fault
from tests.faults.world import World

IN, OUT = ("INPUT", "--in-interface", FAR), ("OUTPUT", "--out-interface", FAR)
WAYS = ((IN,), (OUT,), (IN, OUT))
DROP = ("--jump", "DROP")
REFUSALS = ("icmp-host-unreachable", "icmp-admin-prohibited", "icmp-net-unreachable")

Trouble = Callable[[Namespace, random.Random], bool]


def down(network: Namespace, choice: random.Random) -> bool:
    """An end of it: the agent's own, or the other, of which it hears nothing."""
    if choice.random() < 0.5:
        return network.run("ip", "link", "set", FAR, "down")
    return run("ip", "link", "set", network.wire, "down")


def lossy(network: Namespace, choice: random.Random) -> bool:
    share = f"{choice.uniform(0.1, 0.6):.2f}"
    some = ("--match", "statistic", "--mode", "random", "--probability", share)
    return _rules(network, *((*way, *some, *DROP) for way in (IN, OUT)))


def silent(network: Namespace, choice: random.Random) -> bool:
    return _rules(network, *((*way, *DROP) for way in choice.choice(WAYS)))


def rejecting(network: Namespace, choice: random.Random) -> bool:
    """A firewall that says no: by a reset to either side, or by ICMP."""
    if choice.random() < 0.5:
        way, refusal = choice.choice((IN, OUT)), "tcp-reset"
    else:
        way, refusal = OUT, choice.choice(REFUSALS)
    rule = (*way, "--protocol", "tcp", "--jump", "REJECT", "--reject-with", refusal)
    return _rules(network, rule)


def spent(network: Namespace, choice: random.Random) -> bool:
    """So many bytes pass, and then none."""
    way = choice.choice((IN, OUT))
    size = str(choice.randrange(500, 20000))
    return _rules(
        network, (*way, "--match", "quota", "--quota", size, "--jump", "ACCEPT"), (*way, *DROP)
    )


def slow(network: Namespace, choice: random.Random) -> bool:
    """8 to 64 kbit a second one way; what does not fit its queue is dropped."""
    rate = f"{choice.randrange(8, 64)}kbit"
    bucket = ("root", "tbf", "rate", rate, "burst", "2kb", "latency", "400ms")
    if choice.random() < 0.5:
        return network.run("tc", "qdisc", "add", "dev", FAR, *bucket)
    return run("tc", "qdisc", "add", "dev", network.wire, *bucket)


def _rules(network: Namespace, *rules: tuple[str, ...]) -> bool:
    return all(network.run("iptables", "--append", *rule) for rule in rules)


def _of(trouble: Trouble) -> Injection:
    def inject(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
        site = choice.choice(world.sites)
        network = site.network
        if network is None:
            return None
        network.calm()
        if not trouble(network, choice):
            network.calm()
            return None
        return Hurt(site.name, network.calm)

    return inject


INJECTIONS: dict[str, Injection] = {
    "wire-down": _of(down),
    "wire-lossy": _of(lossy),
    "wire-silent": _of(silent),
    "wire-rejecting": _of(rejecting),
    "wire-spent": _of(spent),
    "wire-slow": _of(slow),
}
