//! Database and php-fpm of the appliance: their command lines, limits and configuration files.
//!
//! In: this host's part of the configuration, the machine's memory. Out: `Service`s in the order of
//! their start, texts of files. Must not: start anything (`os::service` does).
//! Read first: facts/image.md 2(c) and 5; mariadbd(8), php-fpm.conf, cgroups(7).

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::supervise::child::Policy;

pub const DATABASE_CONFIG: &str = "/etc/my.cnf";
pub const DATABASE_DATA: &str = "/data/mysql";
pub const PHP_CONFIG: &str = "/etc/php-fpm.conf";
pub const PHP_INI: &str = "/etc/php.ini";
const PHP_EXTENSIONS: &str = "/usr/lib/php/20220829";

/// Of image/etc/passwd.
pub const MYSQL_ID: u32 = 101;
pub const WWW_ID: u32 = 33;

/// What a host tells the services that run on it.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Name of this host, and its number: 1 or 2.
    pub host: String,
    pub number: u32,
    /// Inside addresses of both, and the network that they are on.
    pub inside: [Ipv4Addr; 2],
    pub network: (Ipv4Addr, Ipv4Addr),
    pub database_port: u16,
    pub php_port: u16,
    /// Administrative account, then those of programs: names and passwords.
    pub administrator: (String, String),
    pub users: Vec<(String, String)>,
    /// Of the whole machine, in MiB.
    pub memory: u64,
}

/// A program that is kept running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name, and its cgroup's.
    pub name: &'static str,
    pub words: Vec<String>,
    pub uid: u32,
    /// Descriptors that it may have open.
    pub files: u64,
    /// As in /proc/PID/oom_score_adj.
    pub oom_score: i32,
    /// Files of its cgroup and what they hold.
    pub limits: Vec<(&'static str, String)>,
    pub policy: Policy,
}

/// How the memory is shared, in MiB; counts of php-fpm's workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub pool: u64,
    /// The database's own buffers, which it fills at its start whatever there is to do: each of
    /// two for its log, and the blocks of Aria (temporary tables).
    pub log_buffer: u64,
    pub aria_buffer: u64,
    pub workers: u64,
    pub database_max: u64,
    pub php_max: u64,
}

impl Share {
    /// A small machine keeps most of it for the page cache and the programs themselves.
    #[must_use]
    pub fn of(memory: u64) -> Self {
        let is_small = memory < 1024;
        let pool = if is_small { memory / 8 } else { memory / 4 };
        let (log_buffer, aria_buffer) = if is_small { (2, 8) } else { (16, 64) };
        // A worker of a small application holds some 24 MiB.
        let workers = (memory / 4 / 24).clamp(3, 64);
        Self {
            pool: pool.max(16),
            log_buffer,
            aria_buffer,
            workers,
            database_max: memory * 3 / 4,
            php_max: memory / 2,
        }
    }
}

/// As `Policy` of the facts' survey: one second, doubled up to half a minute; a database is waited
/// for however long it flushes.
const fn policy(stop_limit: Option<Duration>) -> Policy {
    Policy {
        delay_min: Duration::from_secs(1),
        delay_max: Duration::from_secs(30),
        steady_time: Duration::from_secs(60),
        stop_limit,
    }
}

/// Of a service that is ended at once.
pub const POLICY: Policy = policy(Some(Duration::from_secs(10)));

/// All of them, in the order in which they start; they end in the opposite one.
#[must_use]
pub fn all(facts: &Facts) -> [Service; 2] {
    let share = Share::of(facts.memory);
    let words = |text: &str| text.split(' ').map(str::to_owned).collect();
    [
        Service {
            name: "database",
            words: words(&format!("/usr/sbin/mariadbd --defaults-file={DATABASE_CONFIG}")),
            uid: MYSQL_ID,
            files: 16_384,
            oom_score: -600,
            limits: vec![
                ("memory.low", mebibytes(share.pool + 48)),
                ("memory.max", mebibytes(share.database_max)),
                ("cpu.weight", "200".into()),
            ],
            policy: policy(None),
        },
        Service {
            name: "php",
            words: words(&format!(
                "/usr/sbin/php-fpm8.2 --nodaemonize --allow-to-run-as-root \
                 --fpm-config {PHP_CONFIG} -c {PHP_INI}"
            )),
            // The master; its workers are www-data.
            uid: 0,
            files: 4096,
            oom_score: 300,
            limits: vec![
                ("memory.max", mebibytes(share.php_max)),
                ("pids.max", (share.workers * 4 + 16).to_string()),
                ("cpu.weight", "100".into()),
            ],
            policy: POLICY,
        },
    ]
}

fn mebibytes(count: u64) -> String {
    (count * 1024 * 1024).to_string()
}

/// my.cnf: a member of a pair, that loses no commit with the power, and is closed until tandem
/// opens it.
#[must_use]
pub fn database_config(facts: &Facts) -> String {
    let Share { pool, log_buffer, aria_buffer, .. } = Share::of(facts.memory);
    let (host, number, port) = (&facts.host, facts.number, facts.database_port);
    format!(
        "# Written at every boot.
[mariadbd]
datadir = {DATABASE_DATA}
tmpdir = /data/tmp
socket = /run/mysqld/mysqld.sock
pid-file = /run/mysqld/mysqld.pid
port = {port}
bind-address = 0.0.0.0
skip-name-resolve
server-id = {number}
report-host = {host}
report-port = {port}
read-only = 1
log-bin = binlog
binlog-format = ROW
log-slave-updates
relay-log = relay
skip-slave-start
slave-net-timeout = 4
gtid-strict-mode = 1
sync-binlog = 1
binlog-expire-logs-seconds = 604800
innodb-flush-log-at-trx-commit = 1
innodb-flush-method = O_DIRECT
innodb-doublewrite = 1
innodb-buffer-pool-size = {pool}M
innodb-log-file-size = 16M
innodb-log-buffer-size = {log_buffer}M
aria-pagecache-buffer-size = {aria_buffer}M
key-buffer-size = 1M
max-connections = 200
performance-schema = OFF
event-scheduler = OFF
character-set-server = utf8mb4
"
    )
}

/// What the first boot runs, one statement a line, after the server's own tables: accounts of the
/// configuration, and a database of its own name for each program's.
#[must_use]
pub fn accounts(facts: &Facts) -> String {
    let (network, mask) = facts.network;
    let from = format!("{network}/{mask}");
    let mut sql = String::from("flush privileges;\n");
    let (name, password) = &facts.administrator;
    let mut create = |name: &str, password: &str, on: &str, with: &str| {
        let user = format!("{}@{}", quoted(name), quoted(&from));
        let _infallible = writeln!(
            sql,
            "CREATE OR REPLACE USER {user} IDENTIFIED BY {};\nGRANT ALL ON {on} TO {user}{with};",
            quoted(password)
        );
    };
    create(name, password, "*.*", " WITH GRANT OPTION");
    for (user, password) in facts.users.iter().filter(|(user, _)| user != name) {
        create(user, password, &format!("{}.*", named(user)), "");
    }
    for (user, _) in facts.users.iter().filter(|(user, _)| user != name) {
        let _infallible = writeln!(sql, "CREATE DATABASE IF NOT EXISTS {};", named(user));
    }
    sql
}

/// A text in SQL.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A name in SQL.
fn named(text: &str) -> String {
    format!("`{}`", text.replace('`', "``"))
}

/// php-fpm.conf: the front of both hosts and nobody else.
#[must_use]
pub fn php_config(facts: &Facts) -> String {
    let Share { workers, .. } = Share::of(facts.memory);
    let [first, second] = facts.inside;
    let port = facts.php_port;
    format!(
        "; Written at every boot.
[global]
error_log = /proc/self/fd/2
log_limit = 1024
daemonize = no
[www]
user = www-data
group = www-data
listen = 0.0.0.0:{port}
listen.allowed_clients = 127.0.0.1,{first},{second}
pm = static
pm.max_children = {workers}
pm.max_requests = 1000
pm.status_path = /status
ping.path = /ping
catch_workers_output = yes
decorate_workers_output = no
clear_env = yes
"
    )
}

/// php.ini: production's settings, and the extensions that image/payload.txt takes.
#[must_use]
pub fn php_ini() -> String {
    let mut text = format!(
        "; Written at every boot.
extension_dir = {PHP_EXTENSIONS}
zend_extension = opcache.so
"
    );
    // In the order in which they need each other.
    for name in [
        "calendar",
        "ctype",
        "exif",
        "ftp",
        "gettext",
        "iconv",
        "mbstring",
        "mysqlnd",
        "mysqli",
        "pdo",
        "pdo_mysql",
        "phar",
        "posix",
        "sockets",
        "tokenizer",
    ] {
        let _infallible = writeln!(text, "extension = {name}.so");
    }
    text + "\
date.timezone = UTC
display_errors = Off
log_errors = On
error_log = /proc/self/fd/2
expose_php = Off
memory_limit = 128M
post_max_size = 32M
upload_max_filesize = 32M
upload_tmp_dir = /data/php
session.save_path = /data/php
session.use_strict_mode = 1
sys_temp_dir = /data/php
openssl.cafile = /usr/share/certificates/all.pem
opcache.memory_consumption = 64
opcache.revalidate_freq = 2
mysqli.default_host = 127.0.0.1
"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            host: "server1".into(),
            number: 1,
            inside: [Ipv4Addr::new(192, 168, 3, 100), Ipv4Addr::new(192, 168, 3, 101)],
            network: (Ipv4Addr::new(192, 168, 3, 0), Ipv4Addr::new(255, 255, 255, 0)),
            database_port: 3306,
            php_port: 9000,
            administrator: ("root".into(), "it's".into()),
            users: vec![("app".into(), "a\\b".into()), ("root".into(), "it's".into())],
            memory: 192,
        }
    }

    #[test]
    fn a_small_machine_and_a_large_one_share_their_memory() {
        let small = Share {
            pool: 24,
            log_buffer: 2,
            aria_buffer: 8,
            workers: 3,
            database_max: 144,
            php_max: 96,
        };
        assert_eq!(Share::of(192), small);
        let large = Share {
            pool: 16384,
            log_buffer: 16,
            aria_buffer: 64,
            workers: 64,
            database_max: 49152,
            php_max: 32768,
        };
        assert_eq!(Share::of(65536), large);
    }

    #[test]
    fn accounts_are_quoted_and_come_from_the_inside_network() {
        let sql = accounts(&facts());
        let root = "CREATE OR REPLACE USER 'root'@'192.168.3.0/255.255.255.0' \
                    IDENTIFIED BY 'it''s';";
        assert!(sql.lines().any(|line| line == root), "{sql}");
        assert!(sql.contains("IDENTIFIED BY 'a\\\\b'") && sql.contains("ON `app`.*"), "{sql}");
        // The bootstrap reads a statement a line, and fails with 1064 otherwise.
        assert!(sql.lines().all(|line| line.ends_with(';')), "{sql}");
        assert_eq!(sql.matches("CREATE OR REPLACE USER").count(), 2, "root once");
    }

    #[test]
    fn every_extension_is_in_the_payload() {
        let payload = include_str!("../../image/payload.txt");
        let ini = php_ini();
        let names = ini.lines().filter_map(|line| line.split_once("extension = "));
        let mut count = 0;
        for (_, name) in names {
            count += 1;
            let path = format!("{}/{name}", &PHP_EXTENSIONS[1..]);
            assert!(payload.lines().any(|line| line == path), "{path}");
        }
        let taken = payload.lines().filter(|line| line.ends_with(".so")).count();
        assert_eq!(count, taken, "and nothing that is not loaded");
    }

    #[test]
    fn the_users_of_the_image_have_these_numbers() {
        let passwd = include_str!("../../image/etc/passwd");
        assert!(passwd.contains(&format!("\nmysql:x:{MYSQL_ID}:{MYSQL_ID}:")));
        assert!(passwd.contains(&format!("\nwww-data:x:{WWW_ID}:{WWW_ID}:")));
    }

    #[test]
    fn the_database_is_closed_and_loses_nothing() {
        let text = database_config(&facts());
        for line in ["read-only = 1", "sync-binlog = 1", "innodb-flush-log-at-trx-commit = 1"] {
            assert!(text.lines().any(|it| it == line), "{line}");
        }
        assert!(php_config(&facts()).contains("pm.max_children = 3"));
    }
}
