"""An image's way to probabilities: engines, batches, the pipeline.

artifact.py -> a model's files, loaded and checked
engine.py -> what an engine is
torchscript_engine.py, openvino_engine.py, cuda_engine.py -> the engines
adaptive_engine.py -> engines that combine others
thread_layout.py -> how many streams, and threads for each
measuring.py -> measures engines and layouts
golden_check.py -> compares an engine's answers with known ones
engine_choice.py -> chooses the engine of a model
batcher.py -> forms batches, and runs them
pipeline.py -> decode, resize, batch, compute: one image's way

May import `settings`, `images`, `store`, `errors` and `system`.
"""
