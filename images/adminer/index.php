<?php
/**
 * Debian's Adminer, with the log-in form filled in: the server from ADMINER_DEFAULT_SERVER ("db" without it, as in the
 * official image) and PostgreSQL as the system (ADMINER_DEFAULT_DRIVER names another), which is all this stack has.
 */
function adminer_object(): Adminer\Adminer
{
    return new class extends Adminer\Adminer {
        public function loginFormField($name, $heading, $value)
        {
            if ($name === 'server') {
                $server = htmlspecialchars(getenv('ADMINER_DEFAULT_SERVER') ?: 'db', ENT_QUOTES);
                $value = str_replace("name='auth[server]' value=''", "name='auth[server]' value='" . $server . "'", $value);
            } elseif ($name === 'driver' && !array_intersect(array_keys($_GET), ['pgsql', 'server', 'sqlite', 'oracle', 'mssql'])) {
                // Nothing chosen in the address: Adminer would choose MySQL.
                $driver = htmlspecialchars(getenv('ADMINER_DEFAULT_DRIVER') ?: 'pgsql', ENT_QUOTES);
                $value = str_replace(' selected', '', $value);
                $value = str_replace('<option value="' . $driver . '"', '<option value="' . $driver . '" selected', $value);
            }
            return parent::loginFormField($name, $heading, $value);
        }
    };
}

require '/usr/share/adminer/adminer.php';
