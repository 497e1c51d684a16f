"""The version of this distribution, defined once, where each of its packages may import it.

The SDK's ``__version__`` is that of its API.
"""

__all__ = ["VERSION"]

VERSION = "0.1.0"
