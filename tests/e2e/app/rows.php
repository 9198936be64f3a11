<?php
// Every row that was written, on a line of its own.
mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
header('Content-Type: text/plain');
$db = new mysqli('127.0.0.1', 'app', 'app-Xp29at5F37', 'app', 1234);
foreach ($db->query('SELECT id FROM written ORDER BY id') as $row) {
    echo $row['id'], "\n";
}
$db->close();
