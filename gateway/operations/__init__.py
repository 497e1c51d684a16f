"""Operations on documents: one row each, which requests and lines of batches share.

Nothing of how HTTP or a batch is read or written belongs here, and no connection is opened here.
"""
