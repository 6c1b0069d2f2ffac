# One image for every service of docker-compose.yml: Python, the pinned requirements with a CPU build of torch, and fccl.
# Two more for docker-compose.flower.yml: the same with Flower, and nginx alone.
#
#   BASE_IMAGE   a Debian or Ubuntu with Python 3.11 or newer and pip
#   TORCH_INDEX  the package index that torch comes from. The default has CPU builds only: the usual index would bring several
#                GB of CUDA on Linux. Empty: whatever pip is set up to use.
ARG BASE_IMAGE=python:3.11-slim

# --- the libraries: a layer of their own, made anew only when requirements.txt changes. A fifth of them is tests and what one
#     builds extensions with: not taken along. torch asks for torch/bin/torch_shm_manager when it is imported, so that stays.
FROM ${BASE_IMAGE} AS libraries
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv --without-pip /opt/venv
COPY requirements.txt /tmp/
RUN python3 -m pip --python /opt/venv/bin/python install --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' /tmp/requirements.txt | tr -d '\r')" \
 && python3 -m pip --python /opt/venv/bin/python install -r /tmp/requirements.txt \
 && python3 -m pip --python /opt/venv/bin/python uninstall --yes setuptools \
 && cd /opt/venv/lib/python3*/site-packages \
 && rm -rf torch/test torch/include torch/share torch/bin/test_* torch/bin/*Test \
 && find . -type d -name tests -prune -exec rm -rf {} +

# --- fccl, compiled, so that a container without a right to write here does not compile it at every start
FROM ${BASE_IMAGE} AS program
COPY fccl /opt/app/fccl
COPY docker/fccl docker/healthy docker/prepare /opt/app/bin/
# A checkout may have the line ends of Windows; sh does not know them.
RUN python3 -m compileall -q /opt/app/fccl && sed -i 's/\r$//' /opt/app/bin/* && chmod 755 /opt/app/bin/*

# --- the image
FROM ${BASE_IMAGE} AS fccl
RUN python3 -m pip uninstall --quiet --yes pip setuptools wheel 2>/dev/null || true
RUN groupadd --gid 1000 fccl && useradd --uid 1000 --gid fccl --home-dir /tmp --no-create-home --shell /usr/sbin/nologin fccl \
 && install -d -o fccl -g fccl /fccl /fccl/exchange && install -d -m 1777 /fccl/models /fccl/state /fccl/site /fccl/superlink /fccl/requests
COPY --from=libraries /opt/venv /opt/venv
COPY --from=program /opt/app /opt/app
# HOME and USER are for libraries that ask who runs them: that may be any number, whether it has a name here or not.
ENV PATH=/opt/app/bin:/opt/venv/bin:$PATH PYTHONPATH=/opt/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    OMP_WAIT_POLICY=PASSIVE MKL_CBWR=AUTO HF_HOME=/fccl/models/hub HOME=/tmp USER=fccl
USER 1000:1000
WORKDIR /fccl
ENTRYPOINT ["fccl"]
CMD ["--help"]

# --- Flower, and what it needs beside the libraries: a folder of its own, so that both images share theirs
FROM libraries AS flower_libraries
COPY requirements-dev.txt /tmp/
RUN sed 's/\r$//' /tmp/requirements.txt /tmp/requirements-dev.txt > /tmp/pinned.txt \
 && python3 -m pip --python /opt/venv/bin/python install --prefix /opt/flower --constraint /tmp/pinned.txt flwr \
 && cd /opt/venv/lib && for site in python3*/site-packages; do echo "/opt/flower/lib/$site" > /opt/flower/flower.pth; done

# --- the image of docker-compose.flower.yml
FROM fccl AS flower
USER root
COPY --from=flower_libraries /opt/flower /opt/flower
RUN for site in /opt/venv/lib/python3*/site-packages; do mv /opt/flower/flower.pth "$site/"; done
ENV PATH=/opt/flower/bin:$PATH
USER 1000:1000

# --- the proxy of docker-compose.flower.yml: its configuration is the one that `fccl flower init` has made
FROM ${BASE_IMAGE} AS proxy
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends nginx-light \
 && rm -rf /var/lib/apt/lists/*
USER 1000:1000
ENTRYPOINT ["nginx"]

# --- what `docker build .` makes
FROM fccl
