# A function's image: the runtime's runner layer and the code, nothing else, so that a deployment
# costs one COPY.
ARG RUNNER
FROM ${RUNNER}
COPY function/ /app/function/
