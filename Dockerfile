# One image for all processes of the Procfile; docker-compose.yml sets the command of each. deploy/check_image.py builds
# it and runs each process.
ARG PYTHON_IMAGE=python:3.12-slim
FROM ${PYTHON_IMAGE}

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin relay
WORKDIR /app

# Dependencies first: they rarely change, so their layer stays cached.
COPY requirements.txt .
RUN pip install --require-hashes --no-deps --requirement requirements.txt

COPY alembic.ini pyproject.toml ./
COPY alembic ./alembic
COPY models ./models
COPY sessions ./sessions
COPY relay ./relay
COPY worker ./worker
COPY api ./api
COPY local ./local
COPY agent ./agent
COPY cli ./cli
COPY bin ./bin

# By number, so that a platform can see that it is not root.
USER 10001
# An empty HOST listens on all addresses, IPv4 and IPv6.
ENV HOST="" PORT=8000 PATH="/app/bin:$PATH"
EXPOSE 8000
CMD ["python", "-m", "api"]
