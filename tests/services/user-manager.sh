#!/usr/bin/env bash
# A real systemd without being the machine's: a user manager in a mount and process-id namespace of its own, run by root,
# so that users, capabilities, system calls and paths are restricted as the units say.
#
#   unshare --mount --pid --fork --kill-child --mount-proc user-manager.sh UNITS PROGRAM
#
# UNITS is the only folder that units are looked up in, PROGRAM is what they find in /opt. It prints `managing` when
# `XDG_RUNTIME_DIR=/run/manager systemctl --user` works inside the namespace, and ends with it.
set -euo pipefail
units=$1 program=$2

mount -t tmpfs tmpfs /run
# Without the first folder, systemd thinks that the machine was booted by something else.
mkdir -p /run/systemd/system /run/user /run/manager
mount --bind "$program" /opt
# What every unit depends on.
for target in basic shutdown exit sockets; do printf '[Unit]\nDefaultDependencies=no\n' >"$units/$target.target"; done

export XDG_RUNTIME_DIR=/run/manager SYSTEMD_UNIT_PATH=$units
/lib/systemd/systemd --user --unit=basic.target &
manager=$!
until systemctl --user show --property=Version >/dev/null 2>&1; do
  kill -0 "$manager"
  sleep 0.1
done
# Root's services look for these where the machine's own manager puts them.
cp -a /run/manager/systemd/inaccessible /run/systemd/
# A service that is not root's may say there how it is doing, as with the machine's own manager.
chmod 755 /run/manager /run/manager/systemd
chmod 777 /run/manager/systemd/notify
echo managing
wait "$manager"
