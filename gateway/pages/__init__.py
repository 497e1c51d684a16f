"""The shared parts of the gateway's web pages: the headers that protect them, and their colors."""
