"""View queries: their parameters, the formats of their answers, the documents of their rows."""
