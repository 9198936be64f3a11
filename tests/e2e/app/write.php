<?php
// A page that writes: one row of that id, acknowledged only after the commit. Every fourth one in a
// transaction. LAST_INSERT_ID(@@server_id) brings the id of the server that wrote it back without
// a query of its own, which might be answered by the other server.
mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
header('Content-Type: text/plain');
try {
    $id = (int) $_GET['id'];
    $host = gethostname();
    $db = mysqli_init();
    $db->options(MYSQLI_OPT_CONNECT_TIMEOUT, 20);
    $db->real_connect('127.0.0.1', 'app', 'app-Xp29at5F37', 'app', 1234);
    if ($id % 4 == 0) {
        $db->query('START TRANSACTION');
    }
    $db->query("INSERT INTO written (id, php, server) VALUES ($id, '$host', LAST_INSERT_ID(@@server_id))");
    $server = $db->insert_id;
    if ($id % 4 == 0) {
        $db->query('COMMIT');
    }
    echo "ok $id php=$host db=server$server\n";
    $db->close();
} catch (Throwable $error) {
    http_response_code(500);
    echo 'error ', get_class($error), ' ', $error->getCode(), ': ', $error->getMessage(),
        ' php=', gethostname(), "\n";
}
