# Triton for the `cpu` profile: the release image and what a guard's model.py
# imports in its python backend.
FROM nvcr.io/nvidia/tritonserver:26.07-py3
# The image's Python belongs to its distribution, which refuses pip otherwise.
RUN PIP_BREAK_SYSTEM_PACKAGES=1 pip install --no-cache-dir onnxruntime==1.32.0
