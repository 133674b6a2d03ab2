#!/bin/sh
# Makes a role and a database for each node in PostgreSQL, and sets the roles' passwords. Can be run again.
#
# Ends only when all is done: as long as it fails it tries again, and the deployment that waits for it runs into its time limit. (The
# provider does not look at a container's exit status: one that failed and ended would pass for one that succeeded.)
set -eu

PGPASSWORD=$(cat /run/secrets/postgres-password)
export PGPASSWORD PGCONNECT_TIMEOUT=5

# One node. The name and the password come in as psql variables, quoted by psql itself; they are in no command line and, with the
# statements kept out of the server's log, nowhere else.
ensure() {
    psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 <<SQL
\\set name $1
\\set password $2
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;
SELECT format('CREATE ROLE %I LOGIN', :'name') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'name') \\gexec
ALTER ROLE :"name" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'password';
SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'name') WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \\gexec
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
}

# By default any role may connect to these.
close_to_all() {
    psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --command='REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC'
}

ensure_all() {
    close_to_all || return 1
    while read -r name password; do
        ensure "$name" "$password" || return 1
        echo "role and database $name: ready"
    done </run/secrets/roles
}

until ensure_all; do
    echo "PostgreSQL refused, trying again. If it says that password authentication failed: dbPassword is not the one that the data" \
        "volume was made with; set it back." >&2
    sleep 2
done
