"""Access: who a caller is, and what the table of rules lets callers do."""
