<?php
/** Offers the server and chooses no system, as the official image; each file of plugins-enabled is a plugin. */
function adminer_object(): Adminer\Adminer
{
    foreach (glob('plugins-enabled/*.php') as $plugin) {
        require $plugin;
    }
    return new class extends Adminer\Adminer {
        public function loginFormField($name, $heading, $value)
        {
            $server = 'value="' . ($_ENV['ADMINER_DEFAULT_SERVER'] ?: 'db') . '"';
            return parent::loginFormField($name, $heading, $name === 'server' ? str_replace('value=""', $server, $value) : $value);
        }
    };
}

require '/usr/share/adminer/adminer.php';
