"""The SDK as type checkers see it: programs that are right, and programs with mistakes to be found."""
