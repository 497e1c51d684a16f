"""The key-value protocol, the server's end: connections, sessions, and what each command does to a bucket."""
