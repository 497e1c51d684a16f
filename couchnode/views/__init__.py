"""View engine of the embedded node: design documents, the indexes of their views, and queries over them.

User JavaScript never runs in the node's own process: :mod:`couchnode.views.worker` keeps the index files and
answers queries, and :mod:`couchnode.views.sandbox` processes, which may die at any moment, run V8.
"""
