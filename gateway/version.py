"""The version number, defined once."""

__all__ = ["VERSION"]

VERSION = "0.1.0"
