#!/usr/bin/env bash
# Checks for the system libraries that off-screen OpenGL (pictures) and off-screen Qt (tests) load.
# Installs what is missing where that is permitted (Debian/Ubuntu; root or sudo without password); otherwise prints the
# one line to run. Always ends well: without the libraries only pictures are left out.
set -uo pipefail
[ "$(uname -s)" = Linux ] || exit 0

# library : package on Debian and Ubuntu
needed="libEGL.so.1:libegl1 libEGL_mesa.so.0:libegl-mesa0 libGL.so.1:libgl1 libX11.so.6:libx11-6 libxkbcommon.so.0:libxkbcommon0
        libglib-2.0.so.0:libglib2.0-0 libfontconfig.so.1:libfontconfig1 libdbus-1.so.3:libdbus-1-3"

missing_packages() {
    local known pair
    known=$(/sbin/ldconfig -p 2>/dev/null || ldconfig -p 2>/dev/null) || return 0
    for pair in $needed; do
        # A machine with a graphics driver of its own needs no Mesa.
        [ "${pair%%:*}" = libEGL_mesa.so.0 ] && grep -q "libEGL_nvidia.so.0" <<<"$known" && continue
        grep -qF "${pair%%:*} " <<<"$known" || echo "${pair##*:}"
    done
    if ! grep -q "libEGL_nvidia.so.0" <<<"$known" \
        && ! grep -qE "libgallium-" <<<"$known" && ! compgen -G "/usr/lib/*/dri/*swrast_dri.so" >/dev/null && ! compgen -G "/usr/lib*/dri/*swrast_dri.so" >/dev/null; then
        echo libgl1-mesa-dri
    fi
}

packages=$(missing_packages | xargs)
[ -n "$packages" ] || exit 0

as_root=""
if [ "$(id -u)" != 0 ]; then
    if sudo -n true 2>/dev/null; then as_root="sudo -n"; else as_root=none; fi
fi
if command -v apt-get >/dev/null && [ "$as_root" != none ] && [ -z "${FLUOROGUIDE_NO_SYSTEM_INSTALL:-}" ]; then
    echo "Installing system libraries for pictures: $packages ..."
    log=$(mktemp)
    # shellcheck disable=SC2086
    { $as_root apt-get update -qq && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages; } >"$log" 2>&1 </dev/null \
        || tail -n 3 "$log" >&2
    rm -f "$log"
    packages=$(missing_packages | xargs)
    [ -n "$packages" ] || exit 0
fi

echo "Pictures will be left out: system libraries are missing ($packages)." >&2
if command -v apt-get >/dev/null; then
    echo "To have them, run: sudo apt-get install -y --no-install-recommends $packages" >&2
else
    echo "To have them, install your system's packages for EGL, OpenGL (Mesa), xkbcommon, fontconfig and D-Bus." >&2
fi
exit 0
