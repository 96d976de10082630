"""What lies in the model store; shared with training.

manifest.py -> what a published version says about itself
regular_files.py -> opens a file, if it is a regular one
publishing.py -> publishes a version, or writes a file, whole or not at all
signing.py -> signs a version, where models are published
signatures.py -> whether a trusted key has signed a version, where models are served
labels.py -> names of classes from a file beside a model
references.py -> what a reference to a model means
model_store.py -> names, versions and pins; verifies and prunes versions
stored_version.py -> which version should serve

May import `errors` only.
"""
