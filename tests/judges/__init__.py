"""Our clients and gateway against programs of others.

Each module is skipped, with a word, where its program is missing.

``make judges`` brings what registries have.
"""
