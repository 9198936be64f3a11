//! Notify scripts: the accounts of the databases, which stand in what the old pair ran on a change.
//!
//! In: a script, of any kind. Out: accounts, addresses; what the script did. Must not: run it,
//! show a password. Read first: the mysql-utilities' --master and --rpl-user.

use super::draft::{Draft, Origin, Whose, quoted};

/// Programs that a script is taken over from, and what does it now.
const PROGRAMS: &[(&str, &str)] = &[
    ("mysqlrpladmin", "promotion and switchover are built in: `tandem switchover`"),
    ("mysqlfailover", "failover is built in"),
    ("mysqlreplicate", "replication is set up by tandem"),
    ("mysqlrplcheck", "`tandem db` tells it, and `tandem mysqlrplcheck` is there"),
    ("mysqlrplshow", "`tandem db` tells it, and `tandem mysqlrplshow` is there"),
    ("mysqladmin", "the database is watched by itself"),
    ("mysql ", "promotion, and what a replica needs, are built in"),
    ("service ", "tandem checks the services, and starts none"),
    ("systemctl ", "tandem checks the services, and starts none"),
    ("/etc/init.d/", "tandem checks the services, and starts none"),
    ("killall", "tandem knows by itself what runs"),
    ("pidof", "tandem knows by itself what runs"),
    ("curl ", "php-fpm is pinged by itself"),
    ("arping", "tandem announces the addresses"),
    ("ip addr", "tandem holds the addresses"),
    ("mail ", "tandem sends no mail: watch [console] syslog or metrics"),
    ("sendmail", "tandem sends no mail: watch [console] syslog or metrics"),
    ("SET OFFLINE", "writes are held on both hosts by `tandem switchover`"),
    ("SET ONLINE", "writes are let go on both hosts by `tandem switchover`"),
];

pub(super) fn read(draft: &mut Draft, at: &Origin, text: &str) {
    let mut rest: Option<(Origin, usize)> = None;
    for (index, line) in text.lines().enumerate() {
        let (at, line) = (at.at(index + 1), line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let known = PROGRAMS.iter().find(|(word, _)| line.contains(word));
        accounts(draft, &at, line);
        match known {
            Some((word, why)) => draft.left(&at, word.trim(), why),
            None => rest.get_or_insert((at, 0)).1 += 1,
        }
    }
    if let Some((first, count)) = rest {
        let why = "tandem runs no scripts: look whether something else needs to do this";
        draft.left(&first, &format!("lines like this: {count}"), why);
    }
}

/// `--master=root:secret@192.168.3.100:3306`, `--rpl-user=rpl:secret`, `-uroot -psecret`.
fn accounts(draft: &mut Draft, at: &Origin, line: &str) {
    let mut words = line.split_whitespace().map(|word| word.trim_matches(['"', '\'', ';', ')']));
    while let Some(word) = words.next() {
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key, value),
            None if matches!(word, "-u" | "--user" | "--master" | "--rpl-user" | "--slaves") => {
                (word, words.next().unwrap_or_default())
            }
            None if word.len() > 2 && (word.starts_with("-u") || word.starts_with("-p")) => {
                let Some((key, value)) = word.split_at_checked(2) else { continue };
                (key, value)
            }
            None => continue,
        };
        let value = value.trim_matches(['"', '\'']);
        if value.is_empty() || value.contains(['$', '`']) {
            continue;
        }
        let mysql = line.contains("mysql");
        match key {
            "--master" | "--new-master" | "--source" | "--server" | "--slave" | "--slaves"
            | "--destination" => {
                for server in value.split(',') {
                    account(draft, at, server);
                }
            }
            "--rpl-user" => {
                let (name, password) = value.split_once(':').unwrap_or((value, ""));
                draft.set("repl", "replication_user", quoted(name), at);
                if !password.is_empty() {
                    draft.set("repl", "replication_password", quoted(password), at);
                }
            }
            "-u" | "--user" if mysql => draft.set("repl", "user", quoted(value), at),
            "-p" | "--password" if mysql => draft.set("repl", "password", quoted(value), at),
            "MYSQL_PWD" | "MYSQL_PASS" | "MYSQL_PASSWORD" => {
                draft.set("repl", "password", quoted(value), at);
            }
            "MYSQL_USER" => draft.set("repl", "user", quoted(value), at),
            _ => {}
        }
    }
}

/// `root:secret@192.168.3.100:3306`.
fn account(draft: &mut Draft, at: &Origin, text: &str) {
    let Some((account, place)) = text.rsplit_once('@') else { return };
    let (name, password) = account.split_once(':').unwrap_or((account, ""));
    draft.set("repl", "user", quoted(name), at);
    if !password.is_empty() {
        draft.set("repl", "password", quoted(password), at);
    }
    let address = place.split(':').next().unwrap_or_default();
    draft.see(Whose::Named(String::new()), address, None, at);
}
