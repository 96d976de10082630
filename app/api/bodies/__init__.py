"""The bodies of requests, read as they stream.

content_encoding.py -> decompresses a body
forms.py -> reads the parts of a form
uploads.py -> reads the images of a request, within the limits
"""
