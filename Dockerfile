# autometa on a CPU, from the wheel.
#
#   docker build -t autometa .
#   docker run --rm -u "$(id -u):$(id -g)" -v "$PWD/images:/data:ro" -v "$PWD/output:/output" autometa \
#       run --dataset /data --time-budget 2m --output /output/run
#
# By default PyTorch comes from PyPI, with the libraries of CUDA. Builds for CPUs alone are much smaller: give the index
# that has them (the page "Get started" of PyTorch names it) as
#   docker build --build-arg TORCH_INDEX=URL -t autometa .
#
# Submissions of others: a container is a wall around all of it, but within it they are confined by Landlock, if the
# host's kernel has it, or not at all (`autometa doctor` says which): bubblewrap needs user namespaces, which Docker
# denies. See SECURITY.md.

ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
RUN pip install --no-cache-dir build
COPY . .
RUN python -m build --wheel --outdir /dist

FROM python:${PYTHON}-slim
ARG TORCH_INDEX=""
ARG EXTRAS="fast,weights"
COPY --from=wheel /dist/*.whl /tmp/wheel/
RUN if [ -n "$TORCH_INDEX" ]; then pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision; fi \
    && pip install --no-cache-dir "$(ls /tmp/wheel/*.whl)${EXTRAS:+[$EXTRAS]}" \
    && rm -r /tmp/wheel \
    && useradd autometa \
    && mkdir /output \
    && chown autometa /output
USER autometa
WORKDIR /output
ENV HOME=/tmp
ENTRYPOINT ["autometa"]
CMD ["--help"]
