"""From a trained network to a published model.

predictor.py -> the `Predictor`: resize, crop, normalise, network, softmax
export.py -> scripts it, verifies it, publishes it
onnx_twin.py -> the same as ONNX, for faster engines
publish.py -> publishes the model of a run
import_pretrained.py -> publishes the default model

May import `networks` and everything below it.
"""
