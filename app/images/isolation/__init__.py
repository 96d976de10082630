"""Decodes in processes of their own, which can be ended, and which may do little else than compute.

decoders.py -> the service's side: takes a decoder, sends it an image, ends one that takes too long
messages.py -> what the two sides tell each other
nursery.py -> a small process without threads, from which decoders are forked
decoder.py -> a decoder: an image after the other
confinement.py -> the limits of a decoder: time, memory, system calls

The image's bytes and its pixels lie in memory that both sides share. A decoder is not trusted: what it says is checked.
May not import torch, which would cost each decoder its memory and the service a second at its start.
"""
