"""Access control: identifies callers, and applies the table of rules to them."""
