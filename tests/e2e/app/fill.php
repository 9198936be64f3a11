<?php
// A page that takes room until no more than this share of it is free, and gives it back for 100.
header('Content-Type: text/plain');
set_time_limit(0);
$free = (int) $_GET['free'];
$path = __DIR__ . '/fill.bin';
if ($free === 100) {
    unlink($path);
}
$share = fn() => 100 * disk_free_space(__DIR__) / disk_total_space(__DIR__);
$file = fopen($path, 'a');
while ($share() > $free && @fwrite($file, str_repeat('x', 1 << 20)) === 1 << 20);
printf("%d %% free\n", $share());
