"""Several captions for every training image, found in a corpus by the base model and grouped so that near-duplicates count once."""
