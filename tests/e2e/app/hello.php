<?php echo "hello from ", gethostname(), "\n";
