# Sourced by the scripts beside it, which set `root` first. Finds a Python that can make a virtual environment and lets
# environment.py make (or reuse) one; afterwards `venv` is its folder and `python` its interpreter. POSIX sh only.

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# What a candidate lacks: nothing, "old", "venv" or "broken" (not there, or it does not run).
lacks() {
    "$1" -c '
import sys
if sys.version_info < (3, 11):
    sys.exit(10)
try:
    import ensurepip, venv
except ImportError:
    sys.exit(11)
' >/dev/null 2>&1 </dev/null && return
    case $? in
        10) echo old ;;
        11) echo venv ;;
        *) echo broken ;;
    esac
}

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

find_python() {
    old='' bare=''
    if [ -n "${PYTHON-}" ]; then
        set -- "$PYTHON"
    else
        set -- python3.11 python3.12 python3.13 python3.14 python3 python
    fi
    for candidate; do
        case $(lacks "$candidate") in
            '') base=$candidate; return ;;
            old) old=$candidate ;;
            venv) bare=$candidate ;;
        esac
    done
    if [ -n "$bare" ]; then
        say "$(command -v "$bare") is Python $(version_of "$bare"), but it can't make virtual environments (no ensurepip)." \
            "On Debian or Ubuntu: apt install python$(version_of "$bare")-venv"
    elif [ -n "$old" ]; then
        say "Python 3.11 or newer is needed; $(command -v "$old") is $(version_of "$old")." \
            "Install a newer one, or name it: PYTHON=/path/to/python3.11 $0"
    elif [ -n "${PYTHON-}" ]; then
        say "PYTHON=$PYTHON does not run; it must name a Python 3.11 or newer."
    else
        say "no Python was found; Python 3.11 or newer is needed on the PATH, or named: PYTHON=/path/to/python3.11 $0"
    fi
    exit 1
}

# What the caller's shell says about Python and pip must not reach into our own environment.
unset PYTHONHOME PYTHONPATH PYTHONSTARTUP VIRTUAL_ENV PIP_TARGET PIP_PREFIX
PIP_USER=0
export PIP_USER

# use_environment [EXTRA]: make or reuse the environment. VENV=/folder names one that is used as it is.
use_environment() {
    venv=${VENV-}
    if [ -z "$venv" ]; then
        find_python
        trap 'exit 130' INT # the shell waits for environment.py, which says that it was interrupted
        venv=$("$base" "$root/scripts/environment.py" "$@") || exit $?
        trap - INT
    fi
    python=$venv/bin/python
}
