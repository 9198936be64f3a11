<?php
// A page that kills its worker, whichever host runs it.
file_put_contents('/var/www/marks/poisoned', "x\n", FILE_APPEND | LOCK_EX);
posix_kill(getmypid(), 9);
