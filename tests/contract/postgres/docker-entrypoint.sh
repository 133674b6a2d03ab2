#!/usr/bin/env bash
# Does what the entry point of postgres:17 does (docker-library/postgres, 17/trixie/docker-entrypoint.sh), in its order; README.md has the list.
set -Eeo pipefail

[[ $1 == postgres ]] || exec "$@"

# As root, before it becomes postgres; the second time the variable is there already.
if [[ -n ${POSTGRES_PASSWORD_FILE-} ]]; then
    [[ -z ${POSTGRES_PASSWORD-} ]] || { echo "contract: both POSTGRES_PASSWORD and POSTGRES_PASSWORD_FILE"; exit 1; }
    POSTGRES_PASSWORD=$(< "$POSTGRES_PASSWORD_FILE")
    export POSTGRES_PASSWORD
    unset POSTGRES_PASSWORD_FILE
fi
user=${POSTGRES_USER:-postgres}
exists=
[[ ! -s $PGDATA/PG_VERSION ]] || exists=true

mkdir -p "$PGDATA"
chmod 00700 "$PGDATA" || :
mkdir -p /var/run/postgresql || :
chmod 03775 /var/run/postgresql || :
if [[ $(id -u) == 0 ]]; then
    find "$PGDATA" ! -user postgres -exec chown postgres '{}' +
    find /var/run/postgresql ! -user postgres -exec chown postgres '{}' +
    # Upstream's gosu sets the groups as well.
    exec setpriv --reuid postgres --regid postgres --init-groups "${BASH_SOURCE[0]}" "$@"
fi

if [[ -z $exists ]]; then
    [[ -n $POSTGRES_PASSWORD ]] || { echo "contract: no password for the superuser"; exit 1; }
    ls /docker-entrypoint-initdb.d/ > /dev/null
    initdb --username="$user" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD")
    printf '\nhost all all all %s\n' "$(postgres -C password_encryption "${@:2}")" >> "$PGDATA/pg_hba.conf"
    export PGPASSWORD=$POSTGRES_PASSWORD
    pg_ctl -D "$PGDATA" -o "$(printf '%q ' "${@:2}" -c listen_addresses= -p 5432)" -w start
    pg_ctl -D "$PGDATA" -m fast -w stop
    unset PGPASSWORD
fi
exec "$@"
