"""TLS for Twisted's streams on the standard library's ``ssl``, in memory, without pyOpenSSL.

Twisted's own layer calls OpenSSL through cffi, with fresh buffers and exceptions as return values, which
takes several times as long as the encryption of a small message. Import from the modules; this one imports
nothing.
"""
