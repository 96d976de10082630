"""Bytes of an upload -> pixels; shared with training.

recognise.py -> which format it is, from its first bytes
header_checks.py -> what a header may ask for
decode.py -> checks the header, then decodes
colour.py -> any colour space to sRGB
resize.py -> the model's input size

May import `errors` only.
"""
