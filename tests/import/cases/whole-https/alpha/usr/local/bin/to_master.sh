#!/bin/bash
MYSQL_USER=root
MYSQL_PASS=s3cret
mysql -u$MYSQL_USER -p$MYSQL_PASS -e "STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only=0"
mysqlreplicate --rpl-user=repl:s3cretr --master=$1 --slave=$2
