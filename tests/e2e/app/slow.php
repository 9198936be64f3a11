<?php
// A page that takes 200 ms. A POST leaves a line when it begins, so that one that ran twice is seen.
header('Content-Type: text/plain');
if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    $id = (int) $_POST['id'];
    file_put_contents('/var/www/marks/posts', "$id\n", FILE_APPEND | LOCK_EX);
}
usleep(200000);
echo 'done ', (int) ($_REQUEST['id'] ?? 0), ' php=', gethostname(), "\n";
