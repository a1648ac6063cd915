#!/bin/sh
# Installs Housecall from this bundle, without a network: install.sh [agent|coordinator|cli]
# PREFIX says where to (/opt/housecall), PYTHON with which Python. Run it again to upgrade.
set -eu

program=${1:-agent}
prefix=${PREFIX:-/opt/housecall}
python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")" && pwd)
wanted=$(cat "$here/python-version")

case $program in
    agent | coordinator | cli) ;;
    *) echo "install.sh: expected agent, coordinator or cli, got $program" >&2; exit 2 ;;
esac
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$found" != "$wanted" ]; then
    echo "install.sh: expected Python $wanted, got $found: set PYTHON, or make a bundle for it" >&2
    exit 2
fi
(cd "$here" && sha256sum --quiet --check SHA256SUMS)

umask 022
[ -x "$prefix/bin/python" ] || "$python" -m venv --without-pip "$prefix"
pip() {
    "$prefix/bin/python" "$(echo "$here"/wheels/pip-*.whl)/pip" --isolated --quiet \
        --disable-pip-version-check --no-cache-dir "$@"
}
echo "install into $prefix"
pip install --no-index --no-deps --find-links "$here/wheels" --require-hashes \
    --requirement "$here/requirements.txt"
pip install --no-index --no-deps --force-reinstall "$here"/wheels/housecall-*.whl

if [ "$program" = cli ]; then
    echo "next: $prefix/bin/housecall --help"
else
    "$prefix/bin/housecall-$program" install
fi
