"""Trains image classifiers: from labelled images to a published model that is verified.

`docs/architecture.md` shows the packages and the order in which they may be imported. Of `app`, this package imports
`images`, `store` and `errors` only.
"""
