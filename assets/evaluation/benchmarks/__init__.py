"""Public benchmarks read from a folder in their makers' own layout, one module a family. Nothing is downloaded."""
