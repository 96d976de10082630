"""Tests of `training`, in the folders of its packages. A file that tests a whole package says so in its first line."""
