"""Turns the bytes of an image into the pixels that a model takes; shared with training.

limits.py -> which images are accepted
decode.py -> the whole way from bytes to upright RGB, with the help of the next three
recognise.py -> which format the bytes have
header_checks.py -> work that an image's structure asks for, beyond its pixels
colour.py -> any mode and colour space to sRGB
resize.py -> resizes and crops to the model's input size
clutter.py -> names that systems and storage devices leave among photos

May import `errors` only.
"""
