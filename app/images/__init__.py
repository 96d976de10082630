"""Turns the bytes of an image into the pixels that a model takes; shared with training.

limits.py -> which images are accepted
decode.py -> the whole way from bytes to upright RGB, with the help of the next eleven
recognise.py -> which format the bytes have; what files are that are no image
outline.py -> what is read of a file before a decoder sees it
jpeg.py -> the outline of a JPEG, and its decoder, which hears libjpeg's warnings
png_chunks.py -> the outline of a PNG: chunks, checksums, the first frame
gif_blocks.py -> the outline of a GIF: blocks, palette, whether a second frame follows
tiff_directories.py -> the outline of a TIFF: which page is the picture, camera raw
avif_boxes.py -> the outline of an AVIF: the colour space told by numbers
exif.py -> the orientation in EXIF metadata
coded_colour.py -> a colour space told by numbers, as a profile
colour.py -> any mode and colour space to sRGB
resize.py -> resizes and crops to the model's input size
clutter.py -> names that systems and storage devices leave among photos

May import `errors` only.
"""
