#!/bin/bash
# The official image's start, less the change of user where it starts as root: no pod of ours does.
set -euo pipefail

# A cookie by the environment is a way out of use that the server refuses, too, from 3.9 on.
if [ -n "${RABBITMQ_ERLANG_COOKIE:-}" ]; then
    echo "RABBITMQ_ERLANG_COOKIE is not supported: mount $HOME/.erlang.cookie" >&2
    exit 1
fi
exec "$@"
