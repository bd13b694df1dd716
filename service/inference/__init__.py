"""The Open Inference Protocol v2, apart from the connection: tensors in, a request for labels; labels, tensors out."""
