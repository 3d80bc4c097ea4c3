"""Raw images and what people wrote about them, from one source, as one table. Whether they are usable is curated_images' concern."""
