"""The headers of every page, and the style sheet of colors that all pages use."""

from __future__ import annotations

from pathlib import Path

from gateway.http.response import Headers

__all__ = ["COLORS", "POLICY", "protection"]

COLORS = Path(__file__).parent / "colors.css"
"""The colors by their purpose, light and dark, and the font of code."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        *("script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self'"),
        *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
        # No string may become markup or code: no Trusted Types policy is allowed to create such values.
        *("require-trusted-types-for 'script'", "trusted-types 'none'"),
    )
)
"""The Content-Security-Policy of the pages: their own files, and requests to this gateway."""


def protection(referrer: bytes) -> Headers:
    """Return the headers that protect a page.

    :param referrer: its ``Referrer-Policy``.
    """
    return (
        (b"Content-Security-Policy", POLICY.encode("ascii")),
        (b"Cross-Origin-Opener-Policy", b"same-origin"),
        (b"Cross-Origin-Resource-Policy", b"same-origin"),
        (b"Referrer-Policy", referrer),
        (b"X-Frame-Options", b"DENY"),
    )
