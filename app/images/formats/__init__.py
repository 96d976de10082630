"""What is read of a file of each format, with bounded work, before a decoder sees it.

jpeg.py -> the outline of a JPEG, and its decoder, which hears libjpeg's warnings
png_chunks.py -> the outline of a PNG: chunks, checksums, the first frame
gif_blocks.py -> the outline of a GIF: blocks, palette, whether a second frame follows
tiff_directories.py -> the outline of a TIFF: which page is the picture, camera raw
libtiff.py -> what libtiff says of damaged pixels
webp_header.py -> the size of a WebP
heif_boxes.py -> the boxes of AVIF and HEIC: items, their properties, where their bytes lie
avif.py -> the outline of an AVIF
av1_headers.py -> the size that is coded in an AVIF
heic.py -> the outline of a HEIC, and its decoder, if it is installed
exif.py -> the orientation in EXIF metadata
"""
