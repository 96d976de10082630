"""Turns the bytes of an image into the pixels that a model takes; shared with training.

limits.py -> which images are accepted
decode.py -> the whole way from bytes to upright RGB, with the help of the next six
recognise.py -> which format the bytes have; what files are that are no image
outline.py -> what is read of a file before a decoder sees it
formats/ -> the outline of each format, and the decoder of JPEG
decode_memory.py -> what memory a decode will take
coded_colour.py -> a colour space told by numbers, as a profile
colour.py -> any mode and colour space to sRGB
isolation/ -> decodes in processes of their own
crop.py, resize.py -> resizes and crops to the model's input size
clutter.py -> names that systems and storage devices leave among photos

May import `errors` only.
"""
