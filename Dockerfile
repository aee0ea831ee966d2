# A small CPU image that runs exported models; torch is not in it.
#   docker build -t ima-yolo-edge .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" ima-yolo-edge predict model=best.onnx source=images/
FROM python:3.12-slim

COPY . /source
RUN pip install --no-cache-dir "/source[edge]" && rm -rf /source
RUN useradd --create-home runner
USER runner
WORKDIR /data
ENTRYPOINT ["ima-yolo"]
CMD ["help", "predict"]
