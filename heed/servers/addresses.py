"""Addresses of servers, as people type them."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from heed.errors import UserError


def check_address(url: str, *, key: str, token: str) -> None:
    """Raises UserError for what is not an address, and for one with a password; `token` is where that belongs."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{key}: {url!r} is not the address of a server; give one like http://127.0.0.1:8000/v1")
    if parts.username or parts.password:
        raise UserError(f"{key}: leave name and password out; a token is read only from {token}")


def is_loopback(url: str) -> bool:
    """Whether an address, with or without a scheme, is one of this machine."""
    host = urlsplit(url if "://" in url else f"//{url}").hostname or ""
    try:
        address = ip_address(host)
        return address.is_loopback or address.is_unspecified  # 0.0.0.0, as servers print it, is this machine
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
