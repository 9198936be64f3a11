<?php
// A page that reads: how many rows there are.
mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
header('Content-Type: text/plain');
try {
    $db = mysqli_init();
    $db->options(MYSQLI_OPT_CONNECT_TIMEOUT, 20);
    $db->real_connect('127.0.0.1', 'app', 'app-Xp29at5F37', 'app', 1234);
    $rows = $db->query('SELECT COUNT(*) FROM written')->fetch_row()[0];
    echo "rows $rows php=", gethostname(), "\n";
    $db->close();
} catch (Throwable $error) {
    http_response_code(500);
    echo 'error ', get_class($error), ' ', $error->getCode(), ': ', $error->getMessage(),
        ' php=', gethostname(), "\n";
}
