"""The commands of `image-predictor` other than `serve`.

options.py -> the options of a command: help in groups, the nearest for a typo, completion
predict.py -> classify files without a server
find_images.py -> the images in files and folders
models.py -> list, pin, unpin and prune the published models
keys.py -> make API keys and signing keys, and sign a model
bench/ -> measure a model on this machine, from decoding to HTTP

May import every other package of `app` except `server`. Only `__main__` imports it.
"""
