#!/bin/sh
# Makes a role and a database for each node in PostgreSQL, and sets the roles' passwords. Can be run again.
#
# Ends only when all is done: as long as it fails it tries again, and the deployment that waits for it runs into its time limit. (The
# provider does not look at a container's exit status: one that failed and ended would pass for one that succeeded.)
#
# A database's comment names the volume that its images are in. One that names another volume is left as it is.
set -eu

PGPASSWORD=$(cat /run/secrets/postgres-password)
export PGPASSWORD PGCONNECT_TIMEOUT=5

# SQL from the standard input. Names and passwords come in as psql variables, quoted by psql itself; they are in no command line.
sql() {
    psql --quiet --no-psqlrc --no-align --tuples-only --set=ON_ERROR_STOP=1
}

# One node. Its password is nowhere else: the statements are kept out of the server's log.
ensure() {
    other=$(sql <<SQL
\set name $1
\set volume $3
SELECT substr(found.comment, 8)
FROM (SELECT shobj_description(oid, 'pg_database') AS comment FROM pg_database WHERE datname = :'name') AS found
WHERE found.comment LIKE 'volume %' AND found.comment <> 'volume ' || :'volume';
SQL
    ) || return 1
    if [ -n "$other" ]; then
        echo "The database $1 belongs to the volume $other, and the node's volume is another one, $3: patients would be listed whose" \
            "images are not there. Put the volume back, with its labels. Or begin anew and keep the database under another name: stop the" \
            "node (docker stop), then docker exec -u postgres <the database's container> psql -c \
'ALTER DATABASE $1 RENAME TO \"$1.$other\"'" >&2
        refused=yes
        return 1
    fi
    sql <<SQL
\set name $1
\set password $2
\set volume $3
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;
SELECT format('CREATE ROLE %I LOGIN', :'name') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'name') \gexec
ALTER ROLE :"name" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'password';
-- The node was removed, and is there again with the same volume: see rename_removed.
SELECT format('ALTER DATABASE %I RENAME TO %I', :'name' || '.' || :'volume', :'name')
WHERE EXISTS (SELECT FROM pg_database WHERE datname = :'name' || '.' || :'volume')
    AND NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'name') WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
ALTER DATABASE :"name" WITH ALLOW_CONNECTIONS true;
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SELECT format('COMMENT ON DATABASE %I IS %L', :'name', 'volume ' || :'volume') \gexec
SQL
}

# By default any role may connect to these.
close_to_all() {
    sql <<SQL
REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC;
SQL
}

# The databases of nodes that the stack file no longer names, and whose volumes go: a node of the same name begins with an empty one. Each
# keeps its data, as <database>.<volume>. The node may still run for some seconds; it is not let in again.
rename_removed() {
    sql <<SQL
\set names $(cut -d' ' -f1 /run/secrets/roles | tr '\n' ',')
CREATE TEMPORARY TABLE removed AS
SELECT datname AS name, coalesce(substr(shobj_description(oid, 'pg_database'), 8), oid::text) AS volume
FROM pg_database WHERE datname ~ '^orthanc_[a-z0-9_]+$' AND NOT datname = ANY (string_to_array(:'names', ','));
SELECT format('ALTER DATABASE %I WITH ALLOW_CONNECTIONS false', name) FROM removed \gexec
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity JOIN removed ON datname = name \g /dev/null
SELECT format('ALTER DATABASE %I RENAME TO %I', name, name || '.' || volume) FROM removed \gexec
SELECT 'database ' || name || ' of a node that is gone: renamed to ' || name || '.' || volume FROM removed;
SQL
}

ensure_all() {
    close_to_all || return 1
    while read -r name password volume; do
        ensure "$name" "$password" "$volume" || return 1
        echo "role and database $name: ready"
    done </run/secrets/roles
    [ -z "${RENAME_REMOVED:-}" ] || rename_removed
}

until refused='' && ensure_all; do
    [ -n "$refused" ] || echo "PostgreSQL refused, trying again. If it says that password authentication failed: dbPassword is not the one" \
        "that the data volume was made with; set it back." >&2
    sleep 10
done
