"""Common names for Python 2 and 3, for programs that import them from here as they did from the original."""

from __future__ import annotations

import urllib.parse as ulp
from urllib.parse import parse_qs
from urllib.request import urlopen

__all__ = ["basestring", "long", "parse_qs", "ulp", "unicode", "urlopen", "xrange"]

basestring = unicode = str
long = int
xrange = range
