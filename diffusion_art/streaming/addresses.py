"""Names of machines."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine to itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
