"""Refusals of access: their codes and messages."""

from __future__ import annotations

from gateway.access.rights import Denied
from gateway.http.refusal import Refusal

__all__ = ["AccessDenied", "invalid_token"]

_SCOPE = b'Bearer realm="couchgateway", error="insufficient_scope"'


class AccessDenied(Refusal):
    """No rule allows a request, or an operation of a batch (403).

    The message names the nearest rule, and does not reveal what exists.

    :param is_token: whether the caller sent a bearer token (RFC 6750 3.1).
    """

    def __init__(self, denied: Denied, *, is_token: bool = False) -> None:
        message = "No rule applies to this caller."
        if denied.rule is not None:
            message = f"The rule {denied.rule!r} comes nearest, and does not allow {denied.action} here."
        headers = ((b"WWW-Authenticate", _SCOPE),) if is_token else ()
        super().__init__("AccessDenied", message, resource="", headers=headers)
        if denied.rule is not None:
            self.further = {"rule": denied.rule}


def invalid_token(why: str) -> Refusal:
    """Return the refusal (401) of a token, with the challenge of RFC 6750.

    :param why: in ASCII, without quotes and backslashes.
    """
    challenge = f'Bearer realm="couchgateway", error="invalid_token", error_description="{why}"'
    headers = ((b"WWW-Authenticate", challenge.encode("ascii", "replace")),)
    return Refusal("Unauthorized", f"{why[:1].upper()}{why[1:]}.", resource="", headers=headers)
