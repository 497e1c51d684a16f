"""What the gateway's pages for browsers share: the headers that protect them, and their colors."""
