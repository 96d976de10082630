"""An image's way to probabilities: the engines, the batches, and the pipeline of both.

When a model is loaded:
artifact.py -> what is known about a model; verifies its files
loading.py -> reads that from the files
foreign_files.py -> what a file is that is not TorchScript
devices.py -> the devices to compute on
engine_choice.py -> chooses the engine that serves a model
engine.py -> what an engine is
torchscript_engine.py, openvino_engine.py, cuda_engine.py -> the engines
adaptive_engine.py -> the engine that gives a batch all threads while it is alone
thread_layout.py -> how many streams compute, with how many threads each
golden_check.py -> compares an engine's answers with known ones

When an image comes:
pipeline.py -> takes an image to its probabilities
decode_budget.py -> lets an image be decoded when there is memory for it; what else all models share for that
prepare.py -> decodes and resizes an image for an engine
batcher.py -> forms batches, and runs them on streams

May import `settings`, `images`, `store`, `errors` and `system`.
"""
