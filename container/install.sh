#!/bin/sh
# What an image has beyond a bare Debian 12: Python and the wheel. Dockerfile, una.def and prove.sh run it, as root.
# install.sh FOLDER [EXTRA_INDEX]: FOLDER has the wheel and constraints.txt; EXTRA_INDEX is the address of PyTorch's CPU wheels.
set -eu
apt-get update
apt-get install --yes --no-install-recommends python3 python3-venv ca-certificates
rm -rf /var/lib/apt/lists/*
id una 2>/dev/null || useradd --create-home una
python3 -m venv /opt/una
/opt/una/bin/pip install --no-cache-dir --constraint "$1/constraints.txt" ${2:+--extra-index-url "$2"} "$1"/*.whl
# Compiled once, here: a container is read-only.
NUMBA_CACHE_DIR=/opt/una/numba /opt/una/bin/python -c "import una, una.fluid, una.config"
