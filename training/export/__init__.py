"""Makes a published model of a trained network.

predictor.py -> the `Predictor`: resize, crop, normalise, network, softmax
export.py -> scripts the `Predictor`, verifies and publishes it
onnx_twin.py -> the twin `model.onnx`, for faster engines
publish.py -> publishes the model of a run
import_pretrained.py -> publishes the default model

May import `networks` and everything below it.
"""
