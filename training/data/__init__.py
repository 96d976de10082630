"""Images and their labels, until they are tensors.

sources.py -> where images come from: folders, digits, Fashion-MNIST
scan.py -> every image is looked at once: damage, duplicates, sizes
split.py -> training, validation and test
statistics.py -> the mean and standard deviation of each channel
pixel_store.py -> decoded pixels in memory, and batches of them
prepared.py -> all of it for one configuration
augment.py -> random changes of training images

May import `config` and `errors`; of `app`, `images` and `store`.
"""
