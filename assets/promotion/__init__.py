"""Which recipe is published: all measured recipes side by side, and the verdict on one of them. Drawing is the report's."""
