"""Fair shares between callers: of bytes in transfer, and of the reactor's time."""
