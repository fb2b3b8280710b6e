"""What runs a model: ONNX Runtime on its execution providers, or the ONNX reference evaluator."""
