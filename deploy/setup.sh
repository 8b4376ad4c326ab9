#!/bin/sh
# Make a virtual environment and install this product into it.      sh deploy/setup.sh PYTHON FOLDER WHAT
#   PYTHON  an interpreter, 3.11 or newer      FOLDER  the environment      WHAT  "." or ".[dev]"
# One line of progress on a terminal; all that pip says is in FOLDER/install.log.
set -eu
python=$1 folder=$2 what=$3

command -v "$python" >/dev/null || {
    echo "$python is not installed. Python 3.11 or newer is needed (Debian: apt install python3 python3-venv)." >&2
    exit 1
}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "$("$python" --version) is too old: 3.11 or newer is needed. Another one is chosen so: make PYTHON=python3.12 ..." >&2
    exit 1
}
if ! [ -x "$folder/bin/pip" ]; then
    "$python" -c 'import venv, ensurepip' 2>/dev/null || {
        echo "Python's venv module is not installed (Debian: apt install python3-venv)." >&2
        exit 1
    }
    "$python" -m venv "$folder"
fi

log=$folder/install.log
echo "installing into $folder, once (PyTorch is large: 0.2 to 3 GB, depending on the machine)"
{
    "$folder/bin/pip" install --disable-pip-version-check --no-input --progress-bar off -c constraints.txt -e "$what" 2>&1 &&
        echo "status 0"
} | tee "$log" | while IFS= read -r line; do
    [ -t 1 ] || continue
    case $line in
    *Collecting* | *Downloading* | Installing*) printf '\r\033[K  %.70s' "$(echo "$line" | sed 's/^ *//')" ;;
    "status 0") printf '\r\033[K' ;;
    esac
done
if [ "$(tail -n 1 "$log")" != "status 0" ]; then
    tail -n 15 "$log" >&2
    echo "The installation failed; all of it is in $log." >&2
    exit 1
fi
