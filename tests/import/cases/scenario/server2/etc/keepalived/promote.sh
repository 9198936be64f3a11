#!/bin/sh
# server1 is gone: this host's database takes the writes
mysqlrpladmin --master=root:Xp29at5F37@192.168.3.100:3306 --slaves=root:Xp29at5F37@192.168.3.101:3306 failover
