"""Operations on documents: one row each, shared by requests and lines of batches.

Parsing and formatting of HTTP and batches do not belong here, and no connection is opened here.
"""
