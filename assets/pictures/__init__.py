"""Pictures as the pipeline has them: decoding bytes, the tables that hold them, small copies for people. No model is known here."""
