"""The house's rules of writing, in the form of the linter Vale, and the texts that they hold for."""
