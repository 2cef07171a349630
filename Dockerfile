# The service: adrec serve with live events, without CUDA, as a user without rights.
#   docker build -t adrec .
#   docker run --rm -p 8000:8000 -v ./runs:/runs:ro -v ./data:/data:ro -v ./keys:/keys:ro adrec
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN python -m venv /opt/adrec \
 && /opt/adrec/bin/pip install --no-cache-dir torch --index-url https://download.pytorch.org/whl/cpu \
 && /opt/adrec/bin/pip install --no-cache-dir --constraint constraints.txt '.[serve,postgres,index]'

FROM python:3.12-slim
COPY --from=build /opt/adrec /opt/adrec
RUN useradd --system --uid 10001 --create-home adrec && mkdir /state && chown adrec /state
ENV PATH=/opt/adrec/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
VOLUME /state
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
ENTRYPOINT ["adrec"]
CMD ["serve", "/runs/final", "--host", "0.0.0.0", "--api-key-file", "/keys", "--events", "/state/events.db"]
