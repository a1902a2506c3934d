#!/bin/sh
# Runs the steps of the images in a fresh Debian 12 where no image can be fetched, as root: prove.sh ROOT BIDS_DIR OUT [for una bids].
# The app runs as another user, without a network, in a file system that is read-only but for OUT and /tmp.
# BIND has folders of this machine that pip needs in there, if any.
set -eu
root=$1 data=$2 out=$3
shift 3
here=$(cd "$(dirname "$0")/.." && pwd)
[ -d "$root/usr" ] || debootstrap --variant=minbase bookworm "$root"
if ! [ -x "$root/opt/una/bin/una" ]; then
  mkdir -p "$root/install"
  cp "$here"/dist/wheel/*.whl "$here/constraints.txt" "$here/container/install.sh" "$root/install/"
  unshare --mount sh -euc '
    root=$1
    for folder in /proc /dev; do mount --rbind "$folder" "$root$folder"; done
    for folder in ${BIND:-}; do
      mkdir -p "$root$folder"
      mount --rbind "$folder" "$root$folder"
      mount -o remount,bind,ro "$root$folder"
    done
    cp /etc/resolv.conf /etc/hosts "$root/etc/"
    mkdir -p "$root/usr/local/share/ca-certificates"
    cp -r /usr/local/share/ca-certificates/. "$root/usr/local/share/ca-certificates/"
    chroot "$root" sh /install/install.sh /install ${EXTRA_INDEX:-}
  ' sh "$root"
  rm -r "$root/install"
fi
mkdir -p "$root/data" "$root/out" "$out"
chown "$(chroot "$root" id -u una)" "$out"
exec unshare --mount --net sh -euc '
  root=$1
  mount --rbind "$root" "$root"
  mount --rbind "$2" "$root/data"
  mount -o remount,bind,ro "$root/data"
  mount -o remount,bind,ro "$root"
  mount --bind "$3" "$root/out"
  mount --bind /proc "$root/proc"
  mount --bind /dev "$root/dev"
  mount -t tmpfs tmpfs "$root/tmp"
  shift 3
  exec chroot --userspec=una:una "$root" env -i PATH=/usr/bin:/bin HOME=/tmp MPLCONFIGDIR=/tmp NUMBA_CACHE_DIR=/tmp/numba \
    PYTHONDONTWRITEBYTECODE=1 /opt/una/bin/una bids /data /out "$@"
' sh "$root" "$data" "$out" "$@"
