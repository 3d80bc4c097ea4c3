"""Stage one: the image tower learns classes (gpr) or classes and pseudo-captions (mcip) while the text tower stays locked."""
