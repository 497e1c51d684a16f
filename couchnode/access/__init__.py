"""Who may do what: permissions of the cluster manager, roles, and the privileges of the key-value protocol.

Pure: texts and tables to immutable values. Nothing here knows users, sockets or disks.
"""
