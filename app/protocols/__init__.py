"""Other servers' protocols, so that their clients need another address and nothing else. One module translates each.

routes.py -> adds those that are switched on
probes.py -> is it there, and ready? as each host asks
torchserve/ -> TorchServe's three interfaces
oip/ -> Open Inference Protocol V2, with Triton's extensions
kserve.py -> KServe's V1 protocol
vertex.py -> Vertex AI's custom containers
huggingface.py -> Hugging Face's interface for image classification
invocations.py -> SageMaker's, boto3's and MLflow's `/invocations`
sagemaker_multi_model.py -> the models that SageMaker's platform loads and unloads
json_bodies.py, base64_images.py, parameters.py -> bodies to images and numbers
classifying.py -> all images or none, and the answers' labels
error_shapes.py -> how errors look on which path
documents.py -> what the OpenAPI document says about all that

A request passes a protocol's module, `app.api.answering`, and the same module again. Nothing below knows a protocol.

May import `api` and everything below it.
"""
