"""The networks: architectures, weights before training, heads.

build.py -> the network that a configuration names
small_cnns.py, vgg.py, efficientnet_lite0.py -> architectures
initialisation.py -> random weights to start from
transfer.py -> new heads, frozen layers, features
formulas.py -> output sizes and parameter counts, as docs/training.md explains them

May import `runs`, `data`, `config` and `errors`.
"""
