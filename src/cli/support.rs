//! `tandem support [FILE]`: one archive for whoever is asked for help.
//!
//! In: the daemon's answers, files. Out: a tar.gz. Must not: hold a password: what it says of the
//! configuration is what `tandem config` says.

use std::fs::File;
use std::io::Write;
use std::process::ExitCode;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::status::{absent, fetch};
use crate::console::message::{Level, RELEASE, Request, Response};
use crate::console::note::{Record, timestamp};
use crate::console::render;
use crate::os::{clock, control, notes};

/// What the kernel says of this host: proc(5), os-release(5).
const FILES: [(&str, &str); 8] = [
    ("os-release", "/etc/os-release"),
    ("kernel", "/proc/version"),
    ("memory", "/proc/meminfo"),
    ("load", "/proc/loadavg"),
    ("interfaces", "/proc/net/dev"),
    ("neighbours", "/proc/net/arp"),
    ("routes", "/proc/net/route"),
    ("mounts", "/proc/mounts"),
];

pub(super) fn run(arguments: &[String]) -> ExitCode {
    let now_ms = clock::wall_nanos() / 1_000_000;
    let path = match arguments {
        [] => {
            let at = timestamp(now_ms).get(..19).unwrap_or_default().replace(':', "");
            format!("tandem-support-{}-{at}.tar.gz", super::host_name())
        }
        [path] if !path.starts_with('-') => path.clone(),
        [..] => return super::wrong("support", "takes one file"),
    };
    match write(&path, now_ms / 1000) {
        Ok(count) => {
            println!("{path}: {count} files, no passwords; look at it before you send it");
            ExitCode::SUCCESS
        }
        Err(error) => super::failed(&format!("{path}: {error}")),
    }
}

fn write(path: &str, seconds: u64) -> std::io::Result<usize> {
    let mut archive = tar::Builder::new(GzEncoder::new(File::create(path)?, Compression::best()));
    let mut count = 0;
    let mut add = |name: &str, text: &str| {
        count += 1;
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(text.len()).unwrap_or(u64::MAX));
        header.set_mode(0o600);
        header.set_mtime(seconds);
        archive.append_data(&mut header, format!("tandem-support/{name}"), text.as_bytes())
    };
    add("version", &format!("tandem {RELEASE}\n"))?;
    match fetch() {
        Ok(status) => {
            add("status", &render::status(&status, true))?;
            add("databases", &render::databases(&status))?;
            add("links", &render::links(&status))?;
            let json = serde_json::to_string_pretty(&status).expect("a Status is plain data");
            add("status.json", &json)?;
        }
        Err(why) => add("no-daemon", &format!("{why}\n{}", absent()))?,
    }
    add("notes", &render::notes(&all_notes()))?;
    if let Some(text) = config() {
        add("config", &text)?;
    }
    for (name, path) in FILES {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| format!("{error}\n"));
        add(name, &text)?;
    }
    let mut file = archive.into_inner()?.finish()?;
    file.flush()?;
    file.sync_all()?;
    Ok(count)
}

/// The daemon's, or those that the last one left.
fn all_notes() -> Vec<Record> {
    let mut all = Vec::new();
    let request = Request::Log { count: u32::MAX, level: Level::Info, follow: false };
    let asked = control::ask(&request, |response| {
        if let Response::Notes(some) = response {
            all.extend(some);
        }
    });
    if asked.is_ok() { all } else { notes::load() }
}

fn config() -> Option<String> {
    let mut told = String::new();
    let asked = control::ask(&Request::Config, |response| {
        if let Response::Progress(part) | Response::Done(part) = response {
            told.push_str(&part);
        }
    });
    asked.ok().map(|()| told)
}
