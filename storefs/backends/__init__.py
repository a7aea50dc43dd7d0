"""One folder a backend; they do not know each other."""
