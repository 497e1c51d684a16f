"""Measurements, one command each: ``python -m bench.client``, ``.gateway``, ``.batch``, ``.memory``.

Peers are measured in the same run, taking turns; each figure is a median over the rounds.
"""
