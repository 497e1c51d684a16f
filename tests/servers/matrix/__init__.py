"""Every operation of the SDK and every resource of the gateway, run against servers of many kinds.

``operations`` and ``resources`` are the catalogues, ``expected`` has the outcome of each on every server,
``peers`` has the scripted servers, ``table`` makes docs/servers.md of it all.
"""
