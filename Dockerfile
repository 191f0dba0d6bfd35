FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY olla ./olla
RUN pip wheel --no-cache-dir --wheel-dir /wheels .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --create-home olla
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-index --find-links /wheels olla && rm -rf /wheels
COPY config/olla.yaml /etc/olla/olla.yaml
USER olla
ENV OLLA_SERVER_HOST=0.0.0.0
EXPOSE 40114
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:40114/internal/health', timeout=2)"]
ENTRYPOINT ["olla"]
CMD ["serve", "--config", "/etc/olla/olla.yaml"]
