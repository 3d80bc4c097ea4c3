"""The published recipe's model taken elsewhere: both towers as ONNX graphs, which Immich, transformers.js and our own search read."""
