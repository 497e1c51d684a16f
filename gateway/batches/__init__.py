"""``POST .../batch``: many operations in one request, read and answered as a stream."""
