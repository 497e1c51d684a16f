"""What holds for the repository as a whole: import arrows, docstrings, pages, packaging."""
