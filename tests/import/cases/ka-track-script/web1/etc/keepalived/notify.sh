#!/bin/bash
TYPE=$1
NAME=$2
STATE=$3
case $STATE in
    MASTER) systemctl start nginx ;;
    BACKUP) systemctl stop nginx ;;
esac
echo "$NAME is $STATE" | mail -s vrrp ops@example.org
