# The toolkit as an image whose entry point is its command.
#
#   docker build -t agent-attention .                                # for CPUs
#   docker build -t agent-attention:cuda --build-arg DEVICE=cuda .   # for NVIDIA GPUs
#   docker run --rm -v "$PWD:/work" agent-attention train CONFIG ...
#
# docs/installation.md says more. `make image_steps` carries these lines out without Docker.

FROM debian:bookworm-slim AS base
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/agent-attention/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# torch, mmcv and OpenMMLab: built again only when what is asked of them changes
FROM base AS dependencies
RUN apt-get update && apt-get install --yes --no-install-recommends g++ python3-dev
RUN python3 -m venv /opt/agent-attention
WORKDIR /requirements
COPY requirements/torch.txt requirements/constraints.txt ./
COPY requirements/openmmlab.txt requirements/export.txt ./
# cpu, or cuda: PyPI's build of torch, and the compiler of the CUDA that it is for
ARG DEVICE=cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN case $DEVICE in \
        cpu) pip install -r torch.txt --extra-index-url "$TORCH_INDEX" ;; \
        cuda) pip install -r torch.txt "cuda-toolkit[nvcc,cccl]" ;; \
        *) echo "DEVICE=$DEVICE: choose cpu or cuda" >&2; exit 1 ;; \
    esac
# the address of a wheel that was built for this torch spares the compilation
ARG MMCV_WHEEL=
ARG TORCH_CUDA_ARCH_LIST="8.0 8.6 8.9 9.0+PTX"
RUN if [ "$DEVICE" = cuda ]; then \
        export FORCE_CUDA=1 CUDA_HOME=$(echo /opt/agent-attention/lib/python3*/site-packages/nvidia/cu*); \
        ln -s "$CUDA_HOME"/lib/libcudart.so.* "$CUDA_HOME/lib/libcudart.so"; \
    fi \
    && export MMCV_WITH_OPS=1 TORCH_CUDA_ARCH_LIST \
    && pip install --no-deps --no-build-isolation --no-binary onedl-mmcv \
        "${MMCV_WHEEL:-$(grep ^onedl-mmcv== openmmlab.txt)}" \
    && if [ "$DEVICE" = cuda ]; then pip uninstall --yes nvidia-cuda-nvcc nvidia-nvvm nvidia-cuda-cccl; fi
# opencv-python wants the system's OpenGL library, its headless twin does not
RUN pip install --no-build-isolation -r openmmlab.txt -r export.txt \
    && pip uninstall --yes opencv-python opencv-python-headless \
    && pip install -c constraints.txt opencv-python-headless

FROM base AS wheel
RUN python3 -m venv /opt/agent-attention && pip install hatchling
WORKDIR /source
COPY . .
RUN hatchling build -t wheel -d /dist

FROM base
COPY --from=dependencies /opt/agent-attention /opt/agent-attention
COPY --from=wheel /dist /dist
RUN pip install --no-deps /dist/*.whl && python -c "import mmdet_agent, mmseg_agent"
# any user may be named by `docker run --user`, and writes caches there
RUN useradd --uid 1000 --create-home agent && mkdir /work && chown agent /work
ENV HOME=/tmp USER=agent
USER agent
WORKDIR /work
ENTRYPOINT ["agent-attention"]
CMD ["--help"]
