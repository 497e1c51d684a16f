"""Against forged forms: a form of another site must not change anything here.

Each browser gets a random cookie, and each form a token that only this process can make from it. Besides,
browsers say where a form comes from; another origin than this one is refused.
"""

from __future__ import annotations

import hmac
from secrets import token_bytes, token_hex
from urllib.parse import urlsplit

from twisted.web.http import Request

COOKIE = b"beer_browser"
_COOKIE_CHARACTERS = 32


class Forged(Exception):
    """A form that this application did not make for this browser, or made before it was started again."""


class Guard:
    """Makes tokens for forms, and checks them.

    :param secret: what tokens are made with; a new one if ``None``, so that forms end with the process.
    """

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = secret or token_bytes(32)

    def token(self, request: Request) -> str:
        """Return the token for forms on the page that answers a request; sets the cookie if necessary."""
        browser = _cookie(request)
        if browser is None:
            browser = token_hex(_COOKIE_CHARACTERS // 2).encode()
            request.received_cookies[COOKIE] = browser
            request.addCookie(
                COOKIE, browser, path=b"/", httpOnly=True, sameSite=b"lax", secure=request.isSecure()
            )
        return self._made(browser)

    def check(self, request: Request, token: str) -> None:
        """Let a form pass.

        :raises Forged: it is none of ours.
        """
        origin = request.getHeader(b"origin")
        host = request.getHeader(b"host") or b""
        if origin is not None and _host_of(origin) != host.lower():
            raise Forged("the form was sent by another site")
        if request.getHeader(b"sec-fetch-site") not in (None, b"same-origin", b"none"):
            raise Forged("the form was sent by another site")
        browser = _cookie(request)
        if browser is None or not hmac.compare_digest(self._made(browser).encode(), token.encode()):
            raise Forged("the form has no valid token")

    def _made(self, browser: bytes) -> str:
        return hmac.new(self._secret, browser, "sha256").hexdigest()


def _cookie(request: Request) -> bytes | None:
    value: bytes | None = request.getCookie(COOKIE)
    return value if value is not None and len(value) == _COOKIE_CHARACTERS else None


def _host_of(origin: bytes) -> bytes:
    try:
        return urlsplit(origin.lower()).netloc
    except ValueError:
        return b""
