"""The server side of the key-value protocol: connections, sessions, and the commands on a bucket."""
