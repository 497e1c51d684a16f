"""Answers to view queries: their parameters, their forms, the documents of their rows."""
