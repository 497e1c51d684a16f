"""The vocabulary of the REST dialect: errors, headers, expiry, formats, JSON. Pure: no connection, no
reactor."""
