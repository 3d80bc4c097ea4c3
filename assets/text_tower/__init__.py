"""Stage two (Re-A): the text tower follows the tuned image tower, which stays locked."""
