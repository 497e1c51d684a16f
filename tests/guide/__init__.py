"""The programs of examples/guide, run as their readers run them."""
