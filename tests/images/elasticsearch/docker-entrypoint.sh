#!/bin/bash
# The official image's start: `eswrapper` and `elasticsearch` run the server, whatever else is named runs instead of it.
set -euo pipefail

case ${1:-eswrapper} in
eswrapper | elasticsearch) exec /usr/share/elasticsearch/bin/elasticsearch "${@:2}" ;;
-*) exec /usr/share/elasticsearch/bin/elasticsearch "$@" ;;
*) exec "$@" ;;
esac
