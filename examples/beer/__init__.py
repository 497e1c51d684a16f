"""Beers and breweries in a browser: a small web application on Klein and txcouchbase.

``python -m examples.beer --embedded --load`` and open the address that it prints; see README.md.
"""
