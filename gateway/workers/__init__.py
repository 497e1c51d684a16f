"""Several processes behind one set of listening sockets: ``twistd couchgateway --workers N``.

``supervisor`` runs in twistd's process, ``process`` in each worker.
"""
