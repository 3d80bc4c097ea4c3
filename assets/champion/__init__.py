"""The model that `make promote` chose: kept, and measured on today's test split beside the candidates."""
