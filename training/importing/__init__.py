"""Publishes models that were trained elsewhere, each verified against what its own library answers.

import_model.py -> from a source to a published version: which kind it is, and what it is verified with
weights.py -> reads tensors from a file without running anything in it
architectures.py -> networks of timm and torchvision with given weights, and the preprocessing that they were made for
hugging_face.py -> an image classifier in a folder of Hugging Face
onnx_file.py -> an ONNX classifier, which is published as it is, without TorchScript
torchserve_archive.py -> what a TorchServe archive says and holds
import_archive.py -> from such an archive to a published version
preprocessing.py -> what is done to an image before the network sees it

May import `export`, `networks`, `data`, `runs`, `config` and `errors`; of `app`, `images`, `store` and `errors`.
"""
