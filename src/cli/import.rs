//! `tandem import [--out FILE] NAME=FOLDER [NAME=FOLDER]`: a `tandem.toml` out of an old pair's
//! files.
//!
//! In: folders. Out: the configuration on standard output or in FILE, the report on standard error.
//! Exit codes: 0 complete, 1 something is to be filled in or mended, 2 wrong usage.
//! Read first: `crate::import`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::import::{self, Host};
use crate::os::random::random;

/// Where these files are on a host, for `NAME=/`.
const PLACES: &[&str] = &[
    "etc/keepalived",
    "etc/nginx",
    "usr/local/nginx/conf",
    "usr/local/keepalived/etc",
    "etc/my.cnf",
    "etc/my.cnf.d",
    "etc/mysql",
    "usr/local/mysql-proxy/conf",
    "etc/haproxy",
    "etc/proxysql.cnf",
    "etc/hosts",
    "etc/network",
    "etc/sysconfig/network-scripts",
];
/// More is no configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;
const FILES_MAX: usize = 4096;
const DEPTH_MAX: usize = 12;

pub(super) fn run(arguments: &[String]) -> ExitCode {
    let (mut out, mut hosts) = (None, Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.split_once('=') {
            _ if argument == "--out" => match rest.next() {
                Some(path) => out = Some(path),
                None => return super::wrong("import", "--out needs a file"),
            },
            Some((name, folder)) if !name.is_empty() && !name.starts_with('-') => {
                hosts.push((name, folder));
            }
            _ => return super::wrong("import", &format!("does not know {argument}")),
        }
    }
    if hosts.is_empty() || hosts.len() > 2 {
        return super::wrong("import", "takes one or two of NAME=FOLDER");
    }
    let hosts: Result<Vec<Host>, String> =
        hosts.into_iter().map(|(name, folder)| load(name, Path::new(folder))).collect();
    match hosts.and_then(|hosts| make(&hosts, out.map(String::as_str))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => super::failed(&why),
    }
}

/// Whether it is complete.
fn make(hosts: &[Host], out: Option<&str>) -> Result<bool, String> {
    let outcome = import::import(hosts, &key()?)?;
    match out {
        None => super::put(&outcome.toml),
        Some(path) => {
            let mut options = fs::OpenOptions::new();
            // Passwords stand in it; and what is there already may have been filled in.
            let file = options.write(true).create_new(true).mode(0o600).open(path);
            let written = file.and_then(|mut file| {
                file.write_all(outcome.toml.as_bytes())?;
                file.sync_all()
            });
            written.map_err(|error| format!("{path}: {error}"))?;
        }
    }
    eprint!("{}", outcome.report);
    Ok(outcome.is_complete)
}

/// For the two tandems to know each other by.
fn key() -> Result<String, String> {
    let mut key = String::new();
    for byte in random::<24>()? {
        let _infallible = write!(key, "{byte:02x}");
    }
    Ok(key)
}

/// Every file of a folder that may be a configuration.
fn load(name: &str, folder: &Path) -> Result<Host, String> {
    let mut files = BTreeMap::new();
    let told = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let is_root = fs::canonicalize(folder).is_ok_and(|path| path == Path::new("/"));
    let starts: Vec<PathBuf> = match is_root {
        true => PLACES.iter().map(|place| folder.join(place)).filter(|it| it.exists()).collect(),
        false => vec![folder.to_owned()],
    };
    let mut open: Vec<(PathBuf, usize)> = starts.into_iter().map(|path| (path, 0)).collect();
    while let Some((path, depth)) = open.pop() {
        // A link into another folder is followed: sites-enabled is made of them. In a copy an
        // absolute one is meant within it.
        let mut at = path.clone();
        if let Ok(target) = fs::read_link(&path)
            && let Ok(inside) = target.strip_prefix("/")
        {
            at = folder.join(inside);
        }
        let about = match fs::metadata(&at) {
            Ok(about) => about,
            Err(error) if error.kind() == io::ErrorKind::NotFound && depth > 0 => {
                eprintln!("tandem: {}: left out, it leads nowhere", path.display());
                continue;
            }
            Err(error) => return Err(told(&path, error)),
        };
        if about.is_dir() {
            if depth < DEPTH_MAX {
                for entry in fs::read_dir(&at).map_err(|error| told(&path, error))? {
                    let entry = entry.map_err(|error| told(&path, error))?;
                    open.push((path.join(entry.file_name()), depth + 1));
                }
            }
            continue;
        }
        if !about.is_file() || about.len() > FILE_BYTES_MAX {
            continue;
        }
        if files.len() >= FILES_MAX {
            let why = format!("more than {FILES_MAX} files: copy only the configuration");
            return Err(format!("{}: {why}", folder.display()));
        }
        let bytes = fs::read(&at).map_err(|error| told(&path, error))?;
        let inside = path.strip_prefix(folder).unwrap_or(&path);
        let key = format!("/{}", inside.to_string_lossy());
        files.insert(key, String::from_utf8_lossy(&bytes).into_owned());
    }
    Ok(Host { name: name.to_owned(), files })
}
