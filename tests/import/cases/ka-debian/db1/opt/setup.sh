#!/bin/sh
mysqlreplicate --master=a@10.20.0.11 --rpl-user repl:rs3cret
