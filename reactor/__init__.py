"""Helpers for Twisted programs that Twisted itself lacks.

Nothing here depends on documents, HTTP or the key-value protocol, and nothing else of this project is
imported; ``gateway``, ``txcouchbase`` and ``couchnode`` may import it. Import from the modules: the bare name
would read as Twisted's reactor. This file imports nothing, and :mod:`reactor.framing` and
:mod:`reactor.children` do without Twisted, because processes that run without it use them.
"""
