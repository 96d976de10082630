"""The architectures, their weights before training, and their heads.

build.py -> the network that a configuration names
small_cnns.py, vgg.py, efficientnet_lite0.py -> architectures
initialisation.py -> random weights
transfer.py -> new heads, frozen stages, features
formulas.py -> sizes and parameter counts, by hand

May import `runs`, `data`, `config` and `errors`.
"""
