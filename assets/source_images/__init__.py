"""Pictures of one source and what people wrote about them, as a picture table. curated_images checks whether the pictures are usable."""
