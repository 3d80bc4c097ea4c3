"""The source's images made usable: really decoded, distinct, split by class, checked. Where they come from is source_images' concern."""
