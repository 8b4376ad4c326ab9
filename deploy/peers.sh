#!/bin/sh
# Install the programs that the tests talk to: a PACS, the DICOM toolkits, a database server. Debian and Ubuntu.
# Starts no service. With nothing to do it says nothing.
set -eu
packages="orthanc orthanc-dicomweb dcmtk dicom3tools postgresql"
missing=
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "The tests need$missing. Install them with:  sudo sh deploy/peers.sh   (or run the tests that need none: make test PEERS=none)" >&2
    exit 1
fi
echo "installing$missing"
# No service shall start by itself, and PostgreSQL shall make no cluster: the tests start their own.
policy=/usr/sbin/policy-rc.d
made=
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made=yes
fi
trap '[ -z "$made" ] || rm -f "$policy"' EXIT
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if ! { apt-get update && apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    exit 1
fi
rm -f "$log"
