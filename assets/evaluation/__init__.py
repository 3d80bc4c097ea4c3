"""One recipe's measures and embeddings of the test split. Comparing recipes is promotion's concern."""
