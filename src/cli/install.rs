//! `tandem install` and `tandem uninstall`: this host starts tandem at boot, or does so no more.
//!
//! In: which service manager starts programs here. Out: a plan, shown or carried out: the binary,
//! its manual page, a unit of systemd or a System V script; or the unit alone, as the packages of
//! scripts/release have it. Must not: touch the configuration or what lies in /var/lib/tandem;
//! start the service, which is the operator's to do.
//! Read first: systemd.service(5), sd_booted(3); LSB Core 4.1, 20.2 (init script actions).

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::console::message::RELEASE;
use crate::console::verbs;

const BINARY: &str = "/usr/local/sbin/tandem";
const MANUAL: &str = "/usr/local/share/man/man8/tandem.8";
const UNIT: &str = "/etc/systemd/system/tandem.service";
const SCRIPT: &str = "/etc/init.d/tandem";

/// What starts programs on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    Systemd,
    /// A script, and what puts it into the run levels: `chkconfig` (Red Hat), `update-rc.d`
    /// (Debian), or nobody.
    SystemV(Option<&'static str>),
}

/// One thing that is done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// The binary that runs, to this path.
    Copy(&'static str),
    Write {
        path: &'static str,
        mode: u32,
        text: String,
    },
    Remove(&'static str),
    Run(&'static [&'static str]),
}

pub(super) fn install(arguments: &[String]) -> ExitCode {
    if let [option, binary] = arguments
        && option == "--unit"
    {
        print!("{}", unit(binary));
        return ExitCode::SUCCESS;
    }
    take(arguments, "install", into_service)
}

pub(super) fn uninstall(arguments: &[String]) -> ExitCode {
    take(arguments, "uninstall", out_of_service)
}

fn take(arguments: &[String], verb: &str, plan: fn(Manager) -> Vec<Step>) -> ExitCode {
    let is_shown = match arguments {
        [] => false,
        [option] if option == "--dry-run" => true,
        [..] => return super::wrong(verb, "takes --dry-run or nothing"),
    };
    let Some(manager) = manager(Path::new("/")) else {
        return super::failed(
            "neither systemd (/run/systemd/system) nor /etc/init.d is here: let whatever starts \
             programs on this host start `tandem run`",
        );
    };
    for step in plan(manager) {
        if is_shown {
            print!("{}", step.shown());
        } else if let Err(error) = step.take() {
            return super::failed(&format!("{}: {error}", step.words()));
        } else {
            println!("{}", step.words());
        }
    }
    if !is_shown {
        println!("{}", advice(verb, manager));
    }
    ExitCode::SUCCESS
}

fn manager(root: &Path) -> Option<Manager> {
    if root.join("run/systemd/system").is_dir() {
        return Some(Manager::Systemd);
    }
    let tool = |name: &str| {
        ["sbin", "usr/sbin"].iter().any(|folder| root.join(folder).join(name).is_file())
    };
    let registrar = ["chkconfig", "update-rc.d"].into_iter().find(|name| tool(name));
    root.join("etc/init.d").is_dir().then_some(Manager::SystemV(registrar))
}

fn into_service(manager: Manager) -> Vec<Step> {
    let manual = verbs::manual(RELEASE);
    let mut steps =
        vec![Step::Copy(BINARY), Step::Write { path: MANUAL, mode: 0o644, text: manual }];
    match manager {
        Manager::Systemd => steps.extend([
            Step::Write { path: UNIT, mode: 0o644, text: format!("{MARK}{}", unit(BINARY)) },
            Step::Run(&["systemctl", "daemon-reload"]),
            Step::Run(&["systemctl", "enable", "tandem.service"]),
        ]),
        Manager::SystemV(registrar) => {
            steps.push(Step::Write { path: SCRIPT, mode: 0o755, text: SCRIPT_TEXT.to_owned() });
            steps.extend(registrar.map(|tool| match tool {
                "chkconfig" => Step::Run(&["chkconfig", "--add", "tandem"]),
                _ => Step::Run(&["update-rc.d", "tandem", "defaults"]),
            }));
        }
    }
    steps
}

/// The service ends in order: the other host takes over.
fn out_of_service(manager: Manager) -> Vec<Step> {
    let mut steps = Vec::new();
    match manager {
        Manager::Systemd => steps.extend([
            Step::Run(&["systemctl", "disable", "--now", "tandem.service"]),
            Step::Remove(UNIT),
            Step::Run(&["systemctl", "daemon-reload"]),
        ]),
        Manager::SystemV(registrar) => {
            steps.push(Step::Run(&[SCRIPT, "stop"]));
            // update-rc.d wants the script gone first, chkconfig wants it there.
            if registrar == Some("chkconfig") {
                steps.push(Step::Run(&["chkconfig", "--del", "tandem"]));
            }
            steps.push(Step::Remove(SCRIPT));
            if registrar == Some("update-rc.d") {
                steps.push(Step::Run(&["update-rc.d", "tandem", "remove"]));
            }
        }
    }
    steps.extend([Step::Remove(MANUAL), Step::Remove(BINARY)]);
    steps
}

impl Step {
    /// What it does, as an operator would type it.
    fn words(&self) -> String {
        match self {
            Self::Copy(path) => format!("install -m 0755 tandem {path}"),
            Self::Write { path, mode, .. } => format!("write {path}, mode {mode:04o}"),
            Self::Remove(path) => format!("rm -f {path}"),
            Self::Run(words) => words.join(" "),
        }
    }

    /// The same with the text of what starts the service; the manual page has its own verb.
    fn shown(&self) -> String {
        match self {
            Self::Write { path, text, .. } if *path != MANUAL => {
                let lines = text.lines().map(|line| format!("    {line}").trim_end().to_owned());
                format!("{}\n{}\n", self.words(), lines.collect::<Vec<_>>().join("\n"))
            }
            Self::Copy(_) | Self::Write { .. } | Self::Remove(_) | Self::Run(_) => {
                self.words() + "\n"
            }
        }
    }

    fn take(&self) -> io::Result<()> {
        match self {
            Self::Copy(path) => {
                let own = std::env::current_exe()?;
                if own == Path::new(path) { Ok(()) } else { put(path, 0o755, &fs::read(own)?) }
            }
            Self::Write { path, mode, text } => put(path, *mode, text.as_bytes()),
            Self::Remove(path) => match fs::remove_file(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                result => result,
            },
            Self::Run([program, arguments @ ..]) => {
                let output = Command::new(program).args(arguments).output()?;
                if output.status.success() {
                    return Ok(());
                }
                let said = String::from_utf8_lossy(&output.stderr);
                Err(io::Error::other(format!("{}: {}", output.status, said.trim())))
            }
            Self::Run([]) => Ok(()),
        }
    }
}

/// Whole or not at all: a binary that runs is not written over, and no host boots half a script.
fn put(path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let path = Path::new(path);
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    let new = PathBuf::from(format!("{}.new", path.display()));
    fs::write(&new, bytes)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(new, path)
}

fn advice(verb: &str, manager: Manager) -> String {
    if verb == "uninstall" {
        return "the configuration in /etc/tandem and the state in /var/lib/tandem are left".into();
    }
    let start = match manager {
        Manager::Systemd => "systemctl start tandem",
        Manager::SystemV(_) => "/etc/init.d/tandem start",
    };
    format!("now write {} (tandem example), and then: {start}", super::CONFIG_PATH)
}

/// The unit for a binary that lies there.
fn unit(binary: &str) -> String {
    UNIT_TEXT.replace(BINARY, binary)
}

const MARK: &str = "# Written by `tandem install`; `tandem uninstall` takes it away.\n";

const UNIT_TEXT: &str = "\
[Unit]
Description=tandem, the web and database service of two hosts
Documentation=man:tandem(8)
After=network.target mysqld.service mysql.service mariadb.service php-fpm.service
# It is started again however often it ends.
StartLimitIntervalSec=0

[Service]
ExecStart=/usr/local/sbin/tandem run --config /etc/tandem/tandem.toml
ExecReload=/bin/kill -HUP $MAINPID
# To the guard alone: it ends the node in order, and hands the role over.
KillMode=mixed
TimeoutStopSec=30
Restart=always
RestartSec=1
LimitNOFILE=65536
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
";

const SCRIPT_TEXT: &str = r#"#!/bin/sh
# Written by `tandem install`; `tandem uninstall` takes it away.
#
# chkconfig: 2345 95 05
# description: tandem, the web and database service of two hosts
### BEGIN INIT INFO
# Provides:          tandem
# Required-Start:    $local_fs $network
# Required-Stop:     $local_fs $network
# Should-Start:      mysqld mysql mariadb php-fpm
# Should-Stop:       mysqld mysql mariadb php-fpm
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: tandem, the web and database service of two hosts
### END INIT INFO

binary=/usr/local/sbin/tandem
config=/etc/tandem/tandem.toml
log=/var/log/tandem.log
guard=/run/tandem/guard.pid

pid() {
    found=$(cat "$guard" 2>/dev/null) && [ -n "$found" ] &&
        grep -q tandem "/proc/$found/cmdline" 2>/dev/null && echo "$found"
}

# until_it COMMAND...: waits for it, half a minute at most.
until_it() {
    tries=300
    until "$@"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.1
    done
}
runs() { pid >/dev/null; }
is_gone() { ! runs; }

start() {
    if runs; then return 0; fi
    "$binary" check "$config" || exit 6
    setsid "$binary" run --config "$config" </dev/null >>"$log" 2>&1 &
    until_it runs && return 0
    tail -n 5 "$log" >&2
    return 1
}

stop() {
    found=$(pid) || return 0
    kill "$found"
    until_it is_gone && return 0
    echo "tandem ($found) does not end" >&2
    return 1
}

case "$1" in
start) start ;;
stop) stop ;;
restart | force-reload) stop && start ;;
try-restart | condrestart) runs || exit 0; stop && start ;;
reload) found=$(pid) && kill -HUP "$found" ;;
status)
    if found=$(pid); then echo "tandem ($found) runs"; else echo "tandem does not run"; exit 3; fi
    ;;
*)
    echo "usage: $0 start|stop|restart|try-restart|reload|force-reload|status" >&2
    exit 2
    ;;
esac
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_says_what_starts_its_programs() {
        let root = std::env::temp_dir().join(format!("tandem-install-{}", std::process::id()));
        assert_eq!(manager(&root), None);
        for (path, expected) in [
            ("etc/init.d", Manager::SystemV(None)),
            ("usr/sbin/update-rc.d", Manager::SystemV(Some("update-rc.d"))),
            ("sbin/chkconfig", Manager::SystemV(Some("chkconfig"))),
            ("run/systemd/system", Manager::Systemd),
        ] {
            let path = root.join(path);
            let is_file = path.to_string_lossy().contains("sbin/");
            let folder = if is_file { path.parent().expect("has one") } else { &path };
            fs::create_dir_all(folder).expect("makes the folder");
            if is_file {
                fs::write(&path, "").expect("writes");
            }
            assert_eq!(manager(&root), Some(expected));
        }
        fs::remove_dir_all(root).expect("removes the tree");
    }

    #[test]
    fn the_unit_of_a_package_starts_its_binary() {
        let unit = unit("/usr/sbin/tandem");
        assert!(unit.starts_with("[Unit]\n"), "{unit}");
        assert!(unit.contains("\nExecStart=/usr/sbin/tandem run --config /etc/"), "{unit}");
        assert!(!unit.contains("/usr/local"), "{unit}");
    }

    #[test]
    fn whatever_comes_goes_again() {
        for manager in
            [Manager::Systemd, Manager::SystemV(None), Manager::SystemV(Some("chkconfig"))]
        {
            let mut come: Vec<&str> = into_service(manager)
                .iter()
                .filter_map(|step| match step {
                    Step::Copy(path) | Step::Write { path, .. } => Some(*path),
                    Step::Remove(_) | Step::Run(_) => None,
                })
                .collect();
            let mut gone: Vec<&str> = out_of_service(manager)
                .iter()
                .filter_map(|step| match step {
                    Step::Remove(path) => Some(*path),
                    Step::Copy(_) | Step::Write { .. } | Step::Run(_) => None,
                })
                .collect();
            come.sort_unstable();
            gone.sort_unstable();
            assert_eq!(come, gone, "{manager:?}");
        }
    }
}
