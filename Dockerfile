# safegen on a machine with a GPU. torch's wheel brings CUDA, so the host needs only NVIDIA's driver and
# container toolkit. docs/install.md says how the image is built and run.
FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE MANIFEST.in ./
COPY src src
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
COPY requirements.lock /
COPY --from=build /wheels /wheels
RUN wheel=$(echo /wheels/*.whl) \
    && python -m pip install --no-cache-dir -c /requirements.lock "${wheel}[lora,play,release]" \
    && rm -r /wheels \
    && install -d -o 1000 /data
# Libraries ask who runs them, and any number may (docker run --user). The hub's models are kept in the
# mounted folder, beside what is made.
ENV HOME=/data \
    USER=safegen \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_VISIBLE_DEVICES=all \
    PYTHONUNBUFFERED=1
USER 1000
WORKDIR /data
VOLUME /data
ENTRYPOINT ["safegen"]
CMD ["--help"]
