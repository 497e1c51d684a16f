"""Several processes behind one set of listening sockets: ``twistd couchgateway --workers N``.

``supervisor`` is what runs in twistd's process, ``process`` what runs in each worker.
"""
