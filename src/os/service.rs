//! A service of the appliance, from this program's own process to the one that serves.
//!
//! In: its name. Out: limits set, the first boot's database made, then the program in this
//! process's place. Must not: run before PID 1 has mounted the data.
//! Read first: `appliance::services`; os/children.rs (who starts it); facts/image.md 2(c).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, setrlimit};

use super::file::{named, remove_tree};
use super::{disk, terminal};
use crate::appliance::services::{self, Facts, MYSQL_ID, Service};
use crate::config::Config;
use crate::wire::HostId;

/// Files of the server's own tables, in their order.
const TABLES: [&str; 3] = [
    "/usr/share/mysql/mysql_system_tables.sql",
    "/usr/share/mysql/mysql_system_tables_data.sql",
    "/usr/share/mysql/mysql_performance_tables.sql",
];
const CGROUPS: &str = "/sys/fs/cgroup";

/// What this host's services need to know.
pub fn facts(config: &Config, me: HostId) -> io::Result<Facts> {
    let host = config.host(me);
    let prefix = u32::from(host.inside.prefix);
    let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
    let network = u32::from(host.inside.address) & mask;
    let text = |secret: &crate::units::Secret| secret.reveal().to_owned();
    let users = config.sql.users.iter();
    Ok(Facts {
        host: host.name.clone(),
        number: if me == HostId::First { 1 } else { 2 },
        inside: HostId::ALL.map(|id| config.host(id).inside_address()),
        network: (network.into(), mask.into()),
        database_port: config.repl.port,
        php_port: config.web.php_port,
        administrator: (config.repl.user.clone(), text(&config.repl.password)),
        users: users.map(|user| (user.name.clone(), text(&user.password))).collect(),
        memory: memory()?,
    })
}

/// Of the machine, in MiB.
fn memory() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.map(|count| count / 1024).ok_or_else(|| io::Error::other("/proc/meminfo: no total"))
}

/// Becomes the service of that name; returns only if it cannot.
pub fn become_it(name: &str, facts: &Facts) -> io::Error {
    match prepare(name, facts) {
        Ok(service) => {
            let [program, words @ ..] = service.words.as_slice() else {
                return io::Error::other("a service without words");
            };
            let mut command = Command::new(program);
            command.args(words).uid(service.uid).gid(service.uid).env_clear();
            named(Path::new(program), command.exec())
        }
        Err(error) => error,
    }
}

fn prepare(name: &str, facts: &Facts) -> io::Result<Service> {
    let service = services::all(facts)
        .into_iter()
        .find(|service| service.name == name)
        .ok_or_else(|| io::Error::other(format!("there is no service {name}")))?;
    terminal::heed_signals();
    // Away from the console and from the guard's group.
    let _leads_already = rustix::process::setsid();
    let files = Rlimit { current: Some(service.files), maximum: Some(service.files) };
    setrlimit(Resource::Nofile, files)?;
    fs::write("/proc/self/oom_score_adj", service.oom_score.to_string())?;
    confine(&service)?;
    if service.name == "database" {
        make_database(facts)?;
    }
    Ok(service)
}

/// Puts this process into the service's cgroup, under its limits.
fn confine(service: &Service) -> io::Result<()> {
    let group = Path::new(CGROUPS).join(service.name);
    fs::create_dir_all(&group)?;
    for (file, value) in &service.limits {
        let path = group.join(file);
        // A kernel without this controller has no such file: the service runs without the limit.
        if let Err(error) = fs::write(&path, value) {
            eprintln!("{}: {error}", path.display());
        }
    }
    let processes = group.join("cgroup.procs");
    fs::write(&processes, "0").map_err(|error| named(&processes, error))
}

/// Makes the database of a first boot beside its place, and puts it there when it is whole: one
/// that was interrupted would never start again.
fn make_database(facts: &Facts) -> io::Result<()> {
    let data = Path::new(services::DATABASE_DATA);
    if data.exists() {
        return Ok(());
    }
    let beside = data.with_extension("new");
    remove_tree(&beside)?;
    fs::create_dir(&beside)?;
    chown(&beside, Some(MYSQL_ID), Some(MYSQL_ID))?;
    let mut child = Command::new("/usr/sbin/mariadbd")
        .args(["--no-defaults", "--bootstrap", "--skip-networking", "--skip-log-bin"])
        .args(["--innodb-log-file-size=16M", "--innodb-buffer-pool-size=16M", "--tmpdir=/data/tmp"])
        .args(["--innodb-data-file-path=ibdata1:12M:autoextend", "--loose-aria-log-file-size=8M"])
        // With its own defaults it takes twice the memory, and in 192 MiB never comes to an end.
        .args(["--innodb-log-buffer-size=2M", "--aria-pagecache-buffer-size=1M"])
        .args(["--key-buffer-size=64K"])
        .arg(format!("--datadir={}", beside.display()))
        .uid(MYSQL_ID)
        .gid(MYSQL_ID)
        .env_clear()
        .stdin(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().ok_or_else(|| io::Error::other("it was to be piped"))?;
    input.write_all(b"create database mysql;\nuse mysql;\nSET @auth_root_socket=NULL;\n")?;
    for path in TABLES {
        input.write_all(&fs::read(path).map_err(|error| named(Path::new(path), error))?)?;
    }
    input.write_all(services::accounts(facts).as_bytes())?;
    drop(input);
    let status = child.wait()?;
    if !status.success() {
        return Err(io::Error::other(format!("the database could not be made: {status}")));
    }
    disk::sync_at("/data")?;
    fs::rename(&beside, data)?;
    File::open("/data")?.sync_all()
}
