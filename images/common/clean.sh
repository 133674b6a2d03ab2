#!/bin/sh
# Build stage only, its last step: leave what a container runs, and nothing that tells where it was built.
# Usage: clean.sh [PATTERN...]   packages that only installing needed, purged although others name them ('libperl5.*')
set -eu

for pattern in "$@"; do
    # One at a time: a name that this version of Debian does not have is no reason to fail.
    for package in $(dpkg-query -W -f '${binary:Package} ' "$pattern" 2> /dev/null); do
        dpkg --purge --force-depends --force-remove-essential "$package"
    done
done

# The mirror that the machine uses is the machine's business.
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /etc/apt/apt.conf.d/*proxy* /var/lib/apt/lists/* /var/cache/*
# A key made while building would be the same in every container (package ssl-cert makes one).
rm -rf /etc/ssl/private/* /etc/ssl/certs/ssl-cert-snakeoil.pem
find /usr/share/doc -type f ! -name copyright -delete
find /usr/share/doc -type d -empty -delete
rm -rf /usr/share/man/* /usr/share/info/* /usr/share/i18n /usr/share/lintian /usr/share/bug /usr/share/bash-completion \
    /usr/include /usr/lib/dpkg/methods /var/log/* /tmp/* /var/tmp/* /var/lib/dpkg/*-old /etc/*- /root/.cache
find /usr/share/locale -mindepth 1 -maxdepth 1 ! -name locale.alias -exec rm -rf {} +
find /usr/lib -name '*.a' -type f -delete
# Empty: the engine mounts its own over these.
: > /etc/hostname
: > /etc/resolv.conf
mkdir -p /var/cache/apt/archives/partial /var/lib/apt/lists/partial /var/log/apt
