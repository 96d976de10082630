"""Open Inference Protocol V2 over HTTP, with Triton's extensions: what KServe's and Triton's clients speak.

routes.py -> the routes, and how a request passes the other files
codec.py -> bodies to requests and answers to bodies, in JSON and binary; knows no HTTP
tensors.py -> a tensor to images: files, pixels or normalised input
descriptions.py -> what the service tells about itself and its models
statistics.py -> what it has counted

https://github.com/kserve/open-inference-protocol
https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""
