#!/bin/sh
# Install the programs that the tests talk to: a PACS, the DICOM toolkits, a database server. Debian and Ubuntu.
# Starts no service. With nothing to do it says nothing.
set -eu
PATH=$PATH:/usr/sbin
missing=
need() { # program, package
    command -v "$1" >/dev/null || missing="$missing $2"
}
need Orthanc orthanc
ls /usr/share/orthanc/plugins/*OrthancDicomWeb* >/dev/null 2>&1 || missing="$missing orthanc-dicomweb"
need dcmdump dcmtk
need dciodvfy dicom3tools
need chromium chromium
need strace strace
command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "The tests need these programs, which this script can install on Debian and Ubuntu only:$missing" >&2
    echo "Without them:  make test PEERS=none" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "The tests need$missing. Install them with" >&2
    echo "    sudo sh deploy/peers.sh" >&2
    echo "or run only the tests that need none of them:  make test PEERS=none" >&2
    exit 1
fi

echo "installing$missing"
# No service shall start by itself: the tests start their own.
policy=/usr/sbin/policy-rc.d
made=
log=$(mktemp)
trap '[ -z "$made" ] || rm -f "$policy"; rm -f "$log"' EXIT
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made=yes
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update >"$log" 2>&1 || true # one broken source among many need not matter
if ! apt-get install -y --no-install-recommends $missing >>"$log" 2>&1; then
    tail -n 20 "$log" >&2
    exit 1
fi
