# Everything is compiled now, the standard library too: the root file system is read-only later, and a start
# that compiles takes seconds. Only ripgrepy comes as source; nothing else may run code to install itself.
# The version is asked for because a wrong one could install and still be no engine. kimi-cli's own fetch reads no proxy
# variables and knows no certificates but certifi's: both are made to be the container's.
ARG PIP_INDEX_URL
COPY requirements.txt /usr/local/share/requirements.txt
RUN set -eu; \
    export PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore; \
    python3 -m venv /opt/kimi; \
    /opt/kimi/bin/pip install --no-cache-dir --no-compile --no-deps --require-hashes --only-binary :all: --no-binary ripgrepy \
        --progress-bar off -r /usr/local/share/requirements.txt; \
    /opt/kimi/bin/pip uninstall -q -y pip; \
    cd /opt/kimi/lib/python3*/site-packages; \
    sed -i 's/return aiohttp.ClientSession(/&trust_env=True,/' kimi_cli/utils/aiohttp.py; \
    grep -q trust_env=True kimi_cli/utils/aiohttp.py; \
    ln -sf /etc/ssl/certs/ca-certificates.crt certifi/cacert.pem; \
    python3 -m compileall -q -j 0 /opt/kimi "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"; \
    mkdir -p /home/node/.kimi /workspace/group /workspace/global /run/nanokimi; \
    HOME=/tmp/check /opt/kimi/bin/kimi --version | tee /dev/stderr | grep -qwF 1.51.0; \
    rm -rf /tmp/check
