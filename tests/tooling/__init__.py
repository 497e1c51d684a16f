"""Tests of the repository as a whole: imports, docstrings, pages, packaging."""
