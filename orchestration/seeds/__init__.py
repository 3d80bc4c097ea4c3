"""`make seeds`: the pipeline repeated with other seeds, and how far its numbers spread."""
