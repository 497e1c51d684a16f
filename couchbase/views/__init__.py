"""Views: query parameters, the view object, and a reader of answers that works as they arrive."""
