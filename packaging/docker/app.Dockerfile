# An app's image. clusterd is PID 1: it reaps, forwards signals, and drains on SIGTERM.
FROM clusterd AS clusterd

FROM node:22-slim
COPY --from=clusterd /clusterd /usr/local/bin/clusterd
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev
COPY . .
USER node
EXPOSE 8080
# Only `docker exec app clusterd ls` and the like need a home; without one clusterd runs too.
ENV CLUSTERD_HOME=/tmp/clusterd
# docker stop waits 10 s before it kills: the drain and the end of a worker fit into that.
CMD ["clusterd", "--workers", "max", "--port", "8080", "--drain-timeout", "8s", "--kill-timeout", "1s", \
     "--log", "/dev/stdout", "--log-format", "json", "--", "node", "app.js"]
