"""Makes batches of tensors from labelled images.

names.py -> names of files and classes, made comparable and printable
split_folders.py -> which folders are splits, and which are classes
class_folders.py -> the files of class folders, and what is left out
sources.py -> the images of folders and of known data sets
scan.py -> a look at every image: damage, duplicates, sizes
near_duplicates.py -> images of one split that look like one of another
split.py -> which image is for training, validation or test
statistics.py -> the mean and standard deviation of each channel, and grey
pixel_store.py -> resized images, in memory or decoded anew, and batches of them
prepared.py -> all of this for the configuration of a run
augment.py -> random changes of training images

May import `config` and `errors`; of `app`, `images` and `store`.
"""
