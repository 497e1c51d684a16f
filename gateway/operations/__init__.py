"""Operations on documents: one table row each, shared by requests and batch lines.

This package neither parses nor formats HTTP or batches, and opens no connections.
"""
