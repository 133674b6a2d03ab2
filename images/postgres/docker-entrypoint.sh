#!/bin/bash
# Makes the cluster on the first start, then becomes the server, as user postgres.
set -euo pipefail

# Where a first start builds. It is a folder of the volume, so that the finished cluster is moved, not copied.
building="$PGDATA/.orthanc-stack-init"

die() {
    echo "postgres: $*" >&2
    exit 1
}

# Set NAME from NAME_FILE, or to a default. Not exported: a password would stay in the server's environment.
setting() {
    local name=$1 default=${2-} file="${1}_FILE"
    if [[ -n ${!file-} ]]; then
        [[ -z ${!name-} ]] || die "$name and $file are both set: give one"
        [[ -r ${!file} ]] || die "$file names ${!file}, which user $(id -un) cannot read"
        printf -v "$name" '%s' "$(< "${!file}")"
    else
        printf -v "$name" '%s' "${!name-$default}"
    fi
}

sql() {
    psql --set ON_ERROR_STOP=1 --no-psqlrc --no-password --host /run/postgresql --username "$POSTGRES_USER" "$@"
}

run_init_scripts() {
    local script
    for script in /docker-entrypoint-initdb.d/*; do
        case $script in
            *.sh)
                echo "postgres: running $script"
                # shellcheck source=/dev/null
                if [[ -x $script ]]; then "$script"; else . "$script"; fi
                ;;
            *.sql)
                echo "postgres: running $script"
                sql --dbname "$POSTGRES_DB" --file "$script"
                ;;
        esac
    done
}

# PG_VERSION in PGDATA says that there is a whole cluster, and it comes last. Up to the mark "complete" a start that was
# cut short left things in $building only, which the next one deletes; after it the next one goes on moving. (Upstream
# works in PGDATA itself: an init that was killed after initdb is taken for a whole cluster, without database or role.)
finish() {
    local entry
    shopt -s dotglob
    for entry in "$building"/*; do
        case ${entry##*/} in
            PG_VERSION | orthanc-stack-complete) ;;
            *) mv -T "$entry" "$PGDATA/${entry##*/}" ;;
        esac
    done
    sync -f "$PGDATA"
    if [[ -e $building/PG_VERSION ]]; then mv -T "$building/PG_VERSION" "$PGDATA/PG_VERSION"; fi
    rm -rf "$building"
    sync -f "$PGDATA"
}

initialise() {
    setting POSTGRES_PASSWORD
    setting POSTGRES_USER postgres
    setting POSTGRES_DB "$POSTGRES_USER"
    setting POSTGRES_INITDB_ARGS
    local method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256} stray arguments=()
    [[ -n $POSTGRES_PASSWORD || $method == trust ]] \
        || die "no password for the superuser: set POSTGRES_PASSWORD_FILE or POSTGRES_PASSWORD"

    rm -rf "$building"
    stray=$(find "$PGDATA" -mindepth 1 -maxdepth 1 ! -name lost+found -print -quit)
    [[ -z $stray ]] || die "$PGDATA has no cluster (no PG_VERSION) but is not empty: $stray. Nothing was changed"

    trap 'exit 130' INT TERM # bash as process 1 would ignore them
    trap 'pg_ctl --pgdata "$building" --mode immediate --silent stop > /dev/null 2>&1 || :' EXIT
    eval "arguments=($POSTGRES_INITDB_ARGS)" # a shell's words, quotes and all: upstream reads it so
    if [[ -n $POSTGRES_PASSWORD ]]; then
        initdb --pgdata "$building" --username "$POSTGRES_USER" --auth-local trust --auth-host "$method" \
            --pwfile <(printf '%s\n' "$POSTGRES_PASSWORD") "${arguments[@]}"
    else
        initdb --pgdata "$building" --username "$POSTGRES_USER" --auth-local trust --auth-host "$method" "${arguments[@]}"
    fi
    printf '\nhost all all all %s\n' "$method" >> "$building/pg_hba.conf"

    # The socket only: a probe over TCP must not call this server ready.
    shift
    pg_ctl --pgdata "$building" --wait --silent start \
        --options "$(printf '%q ' "$@" -c "listen_addresses=" -c "unix_socket_directories=/run/postgresql")"
    export POSTGRES_USER POSTGRES_DB # for the scripts
    if [[ $POSTGRES_DB != postgres ]]; then
        sql --dbname postgres --set database="$POSTGRES_DB" <<< 'CREATE DATABASE :"database";'
    fi
    run_init_scripts
    pg_ctl --pgdata "$building" --mode fast --wait --silent stop
    trap - EXIT INT TERM

    sync -f "$building"
    touch "$building/orthanc-stack-complete"
    finish
    echo "postgres: the cluster is made"
}

[[ ${1:0:1} != - ]] || set -- postgres "$@"
# Another program (psql, pg_dump, a shell): nothing to prepare.
[[ $1 == postgres ]] || exec "$@"

if [[ $(id -u) == 0 ]]; then
    mkdir -p "$PGDATA"
    find "$PGDATA" /run/postgresql ! -user postgres -exec chown postgres:postgres {} +
    exec env HOME=/var/lib/postgresql setpriv --reuid postgres --regid postgres --init-groups "$0" "$@"
fi

# The server refuses a folder that others can read. Its owner needs no capability (FOWNER) for it; another --user may not.
chmod 0700 "$PGDATA" || :
if [[ ! -s $PGDATA/PG_VERSION && -e $building/orthanc-stack-complete ]]; then
    finish
elif [[ ! -s $PGDATA/PG_VERSION ]]; then
    initialise "$@"
elif [[ -e $building ]]; then
    rm -rf "$building" # all of the cluster was moved; only the empty folder was left
fi
unset POSTGRES_PASSWORD
exec "$@"
