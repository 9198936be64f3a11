<?php
// What an application does when it is set up: makes its table, and says so.
mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
header('Content-Type: text/plain');
try {
    $db = mysqli_init();
    $db->options(MYSQLI_OPT_CONNECT_TIMEOUT, 20);
    $db->real_connect('127.0.0.1', 'app', 'app-Xp29at5F37', 'app', 1234);
    $db->query('CREATE TABLE IF NOT EXISTS written (id BIGINT PRIMARY KEY, '
        . 'php VARCHAR(64) NOT NULL, server INT NOT NULL)');
    echo "installed\n";
    $db->close();
} catch (Throwable $error) {
    http_response_code(500);
    echo 'error ', get_class($error), ' ', $error->getCode(), ': ', $error->getMessage(), "\n";
}
