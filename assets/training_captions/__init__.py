"""The pseudo-captions that one recipe of image_tower trains with: all, or none."""
