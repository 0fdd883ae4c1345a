"""Two machines' worth of addresses on one: namespaces of the network that share a bridge, and can be cut off it."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Names of devices hold fifteen characters.
_PREFIX = f"qt{os.getpid() % 10**6}"
# Of the addresses that are nobody's; the process says which, so that two runs do not meet.
_NET = f"10.213.{os.getpid() % 250}"


def ip(*words: str) -> None:
    """Run iproute2's `ip`."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=30)


@dataclass(frozen=True, slots=True)
class Host:
    """A namespace with an address of its own."""

    name: str
    address: str

    @property
    def command(self) -> list[str]:
        """What a command has to begin with to run there."""
        return ["ip", "netns", "exec", self.name]

    def cut_off(self) -> None:
        """Take its link away: what it sends goes nowhere, and nobody says so."""
        ip("link", "set", f"{self.name}v", "down")

    def reconnect(self) -> None:
        """Give it its link back."""
        ip("link", "set", f"{self.name}v", "up")


@dataclass(frozen=True, slots=True)
class Network:
    """Our own address on the bridge, and the hosts on it."""

    address: str
    hosts: tuple[Host, ...]


@contextmanager
def network(hosts: int = 2) -> Iterator[Network]:
    """Make so many hosts on one bridge with this machine; all of it is gone afterwards."""
    bridge, made = f"{_PREFIX}br", []
    try:
        ip("link", "add", bridge, "type", "bridge")
        ip("addr", "add", f"{_NET}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for number in range(hosts):
            host = Host(f"{_PREFIX}{'abcdefgh'[number]}", f"{_NET}.{number + 2}")
            ip("netns", "add", host.name)
            made.append(host)
            ip("link", "add", f"{host.name}v", "type", "veth", "peer", "name", "eth0", "netns", host.name)
            ip("link", "set", f"{host.name}v", "master", bridge, "up")
            ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", host.name, "link", "set", device, "up")
        yield Network(f"{_NET}.1", tuple(made))
    finally:
        for words in (*(("netns", "del", one.name) for one in made), ("link", "del", bridge)):
            subprocess.run(["ip", *words], check=False, capture_output=True, timeout=30)


def can_make_networks() -> bool:
    """Whether namespaces, bridges and links between them can be made here: by root, and not in every container."""
    if os.geteuid() or shutil.which("ip") is None:
        return False
    try:
        with network(1):
            return True
    except (subprocess.SubprocessError, OSError):
        return False
