"""Which image URLs may be fetched: pure rules for URLs, host names and IP addresses.

Promises: a URL that passes is http or https on an allowed port, with a host that every parser reads
the same way; an IP address passes if it is public or an operator allowed it. Refuses everything
else, with an `ImageError`; a host without a public address gets the same message whether it exists
or not.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from yarl import URL

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL_CHARACTERS = 8190  # what most servers take in a request line
DEFAULT_PORTS = frozenset({80, 443})

# https://www.iana.org/assignments/iana-ipv4-special-registry, multicast and reserved blocks. How
# many of them Python's `is_global` knows depends on its version.
SPECIAL_PURPOSE = [
    ip_network(block)
    for block in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        # https://www.iana.org/assignments/iana-ipv6-special-registry, within 2000::/3: Teredo and
        # its like, documentation, 6to4
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    )
]
# Global unicast (RFC 4291, 2.4); mapped and NAT64 forms are outside it
PUBLIC_IPV6 = IPv6Network("2000::/3")

# No setting allows these: cloud metadata services, which hand out credentials, and the IPv6 forms
# that can stand for such an IPv4 address
ALWAYS_BLOCKED = [
    ip_network(block)
    for block in (
        "169.254.0.0/16",
        "fe80::/10",
        "fd00:ec2::/32",  # AWS
        "fd20:ce::/32",  # Google
        "168.63.129.16/32",  # Azure, in a public block
        "100.100.100.200/32",  # Alibaba
        "192.0.0.192/32",  # Oracle
        "::ffff:0:0/96",  # IPv4-mapped
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",  # local-use NAT64
        "2001::/32",  # Teredo
        "2002::/16",  # 6to4
    )
]

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?:[/?#][^\x00-\x20\x7f\\\ud800-\udfff]*)?",
    re.IGNORECASE,
)
# What every parser reads as a name: some take one whose last label is a number for an IPv4 address,
# in octal, in hex or with fewer parts
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z][a-z0-9-]{0,62}"
)
_ENTRY = re.compile(r"(?:\[(?P<v6>[^]]+)\]|(?P<v4>[^:]+))(?::(?P<port>[0-9]{1,5}))?")


class ImageError(ValueError):
    """Why an image is refused: a message for the client, whose fault it is."""


@dataclass(frozen=True)
class FetchPolicy:
    """`hosts`: None for any. `addresses`: networks allowed beside the public ones, each with the
    one port allowed there, or None for `ports`."""

    hosts: tuple[str, ...] | None = None
    ports: frozenset[int] = DEFAULT_PORTS
    addresses: tuple[tuple[Network, int | None], ...] = ()


def read_policy(environment: Mapping[str, str]) -> FetchPolicy:
    """The policy from ALLOWED_IMAGE_HOSTS, _PORTS and _ADDRESSES; a `ValueError` names the variable
    that cannot be read."""

    def each(name: str, read: Callable[[str], Any]) -> tuple[Any, ...]:
        words = [word.strip() for word in environment.get(name, "").split(",")]
        try:
            return tuple(read(word) for word in words if word)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    return FetchPolicy(
        each("ALLOWED_IMAGE_HOSTS", _host) if "ALLOWED_IMAGE_HOSTS" in environment else None,
        frozenset(each("ALLOWED_IMAGE_PORTS", _port)) or DEFAULT_PORTS,
        each("ALLOWED_IMAGE_ADDRESSES", _entry),
    )


def _host(text: str) -> str:
    host = text.lower()
    if not _HOST_NAME.fullmatch(host.removeprefix(".")) and not is_literal(host):
        raise ValueError(
            f"{host!r} is not a host name; write images.example.com, or .example.com for all "
            "names below it"
        )
    return host


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError(f"{text!r} is not a port; use 1 to 65535")
    return int(text)


def _entry(text: str) -> tuple[Network, int | None]:
    if not (parts := _ENTRY.fullmatch(text)):
        raise ValueError(
            f"{text!r} is not an address; for example 10.1.2.3, 10.1.0.0/16, 127.0.0.1:8123 or "
            "[fd12::1]:8123"
        )
    network = ip_network(parts["v6"] or parts["v4"])
    return network, _port(parts["port"]) if parts["port"] else None


def is_public(address: Address) -> bool:
    """Whether an address is globally reachable unicast."""
    if isinstance(address, IPv6Address) and address not in PUBLIC_IPV6:
        return False
    if any(address in block for block in (*SPECIAL_PURPOSE, *ALWAYS_BLOCKED)):
        return False
    return address.is_global


def check_address(text: str, port: int, host: str, policy: FetchPolicy) -> None:
    """`ImageError` unless `text`, an IP address of `host`, may be connected to on `port`."""
    address = ip_address(text)
    if any(address in block for block in ALWAYS_BLOCKED) or not (
        (port in policy.ports and is_public(address))
        or any(
            address in network and (port in policy.ports if only is None else port == only)
            for network, only in policy.addresses
        )
    ):
        raise no_public_address(host)


def no_public_address(host: str) -> ImageError:
    """The same error for hosts that are private, not allowed, or do not exist."""
    return ImageError(f"{host} has no public address that may be fetched from")


def check_url(url: str, policy: FetchPolicy) -> URL:
    """The URL to request; `ImageError` unless it is allowed. Its host is not resolved yet."""
    if policy.hosts == ():
        raise ImageError(
            "only data URLs are accepted here (data:image/png;base64,…), not addresses"
        )
    if len(url) > MAX_URL_CHARACTERS:
        raise ImageError(f"its address has more than {MAX_URL_CHARACTERS} characters")
    if not re.match("https?://", url, re.IGNORECASE):
        raise ImageError("its address must begin with https://, http:// or data:image/…;base64,")
    if "@" in re.split("[/?#]", url.partition("://")[2], maxsplit=1)[0]:
        raise ImageError("its address has credentials in it; leave out what stands before the @")
    if not (parts := _URL.fullmatch(url)):
        raise ImageError(
            "its address is malformed: a host is written in ASCII letters, digits, '-' and '.', "
            "and no part has spaces, control characters or backslashes"
        )
    host = parts["host"].lower()
    if not is_literal(host) and not _HOST_NAME.fullmatch(host):
        raise ImageError(
            "the host of its address must be a name without a trailing dot, or an IP address in "
            "its usual form (four decimal numbers, or IPv6 in brackets)"
        )
    if policy.hosts is not None and not any(_matches(host, allowed) for allowed in policy.hosts):
        raise ImageError(f"{host} is not among the hosts that images may be fetched from")
    port = int(parts["port"] or (443 if parts["scheme"].lower() == "https" else 80))
    if port not in policy.ports | {only for _, only in policy.addresses}:
        allowed = ", ".join(map(str, sorted(policy.ports)))
        raise ImageError(f"its address names port {port}; allowed: {allowed}")
    if is_literal(host):
        check_address(host.strip("[]"), port, host, policy)
    try:
        read = URL(url)  # aiohttp's own parser, which must not see another host
        plain = str(IPv6Address(host[1:-1])) if host.startswith("[") else host
        understood = (read.raw_host, read.port) == (plain, port)
    except ValueError:
        understood = False
    if not understood:
        raise ImageError("its address is malformed")
    return read


def _matches(host: str, allowed: str) -> bool:
    return host.endswith(allowed) if allowed.startswith(".") else host == allowed


def is_literal(host: str) -> bool:
    """Whether `host` is an IP address in its usual form."""
    try:
        if host.startswith("["):
            IPv6Address(host.strip("[]"))
        else:
            IPv4Address(host)
    except ValueError:
        return False
    return True
