"""What lies in the model store; shared with training.

manifest.py -> what one published version is
publishing.py -> publishes a version, whole or not at all
model_store.py -> names, versions, pins; verifies files
stored_version.py -> the version that should serve
signatures.py -> whether a trusted key has signed it
signing.py -> signs it

May import `errors` only.
"""
