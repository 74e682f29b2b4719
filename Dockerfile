# Heed and its commands, on a CPU or on CUDA.
#   docker build -t heed .
#   docker build -t heed --build-arg BASE=nvidia/cuda:13.0.1-base-ubuntu24.04 .
#   docker run --rm -it --gpus all -v "$PWD:/rows" heed heed-train --config configs/csv.yaml --data my_rows.csv --output_dir runs/mine
ARG BASE=python:3.12-slim
FROM ${BASE}
# A CUDA base comes without Python; that of Ubuntu 24.04 is 3.12.
RUN command -v python3 || (apt-get update && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*)
RUN python3 -m venv /opt/heed
ENV PATH=/opt/heed/bin:$PATH

# The packages first: they change less often than Heed. INDEX is where else torch may come from, as from the index that
# PyTorch has for CPUs, whose build is gigabytes smaller.
ARG INDEX=
COPY requirements.txt /opt/heed/
RUN pip install --no-cache-dir ${INDEX:+--extra-index-url "$INDEX"} -r /opt/heed/requirements.txt
COPY . /opt/heed/source
RUN pip install --no-cache-dir --no-deps /opt/heed/source && rm -rf /opt/heed/source

WORKDIR /rows
CMD ["heed-train"]
