"""Where targets may be. Whoever may define one can make this service send requests, from where it stands: so only to
public addresses, unless TARGET_NETWORKS allows more.

What is asked is the address that is about to be connected to, and not its name: a name may mean another address a
moment later.
"""
from ipaddress import IPv6Address, ip_address, ip_network

from django.conf import settings

# Registries of special addresses are not the same in every Python; this is IANA's, as far as `is_global` may not know it.
NOT_PUBLIC = [ip_network(text) for text in (
    "192.0.0.0/24", "192.88.99.0/24",   # for protocols; relays of 6to4, given up (RFC 6890, RFC 7526)
    "168.63.129.16/32",                 # public by its number, and within Azure the host's own services
    "3fff::/20",                        # documentation (RFC 9637)
)]
GLOBAL_UNICAST = ip_network("2000::/3")     # what there is of public IPv6 (RFC 4291, 2.4)
NAT64 = ip_network("64:ff9b::/96")          # RFC 6052


class Forbidden(Exception):
    """No target may be there. Nothing was connected to."""


def allowed(address):
    """Whether a target may be at an IP address: str, as getaddrinfo gives it."""
    try:
        ip = ip_address(address.partition("%")[0])      # without a link's name
    except ValueError:
        return False
    ips = {ip, _within(ip)}
    if any(ip in network for ip in ips for network in settings.TARGET_NETWORKS):
        return True
    return _public(_within(ip))


def check(host, found):
    """Those of `found`, as socket.getaddrinfo returns it for `host`, that may be connected to. Raises Forbidden if
    there is none, with the same words whatever is there."""
    good = [entry for entry in found if allowed(entry[4][0])]
    if not good:
        raise Forbidden(f"{host} is at no public address, and TARGET_NETWORKS does not allow it")
    return good


def _within(ip):
    """The IPv4 address that an IPv6 address stands for, or itself."""
    if not isinstance(ip, IPv6Address):
        return ip
    if ip in NAT64:
        return ip_address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


def _public(ip):
    if isinstance(ip, IPv6Address) and ip not in GLOBAL_UNICAST:
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not any(ip in network for network in NOT_PUBLIC)
