"""The ground floor: what Twisted programs need and Twisted does not have, each once.

Nothing here knows of documents, of HTTP or of the key-value protocol, and nothing of this project is
imported; ``gateway``, ``txcouchbase`` and ``couchnode`` may import it. Import from the modules: the bare name
would read as Twisted's reactor. This file imports nothing, and :mod:`reactor.framing` and
:mod:`reactor.children` do without Twisted, because processes that run without it use them.
"""
