"""Official clients against our node."""
