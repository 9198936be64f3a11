//! `site FILE`, of an appliance: another PHP application, or a newer one, in the place of the one
//! that is served.
//!
//! Exit code 0: it is served. 1: refused or failed; what was served still is.
//! Read first: os/site.rs.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::appliance::services::WWW_ID;
use crate::os::site::Site;
use crate::os::update;

pub(super) fn run(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["--back"] => site().and_then(|site| site.take_back().map_err(|error| error.to_string())),
        ["--whole", place] | [place, "--whole"] => take(place, true),
        [place] if !place.starts_with("--") => take(place, false),
        [..] => {
            return super::wrong("site", "takes one file or address, --whole with it, or --back");
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => super::failed(&why),
    }
}

fn site() -> Result<Site, String> {
    super::appliance_disk("copy the application to its document root")?;
    // A link that PID 1 made.
    Ok(Site { folder: PathBuf::from("/data/www"), owner: WWW_ID, spare: 10 })
}

fn take(place: &str, is_whole: bool) -> Result<(), String> {
    let site = site()?;
    let wrong = |error| format!("{place}: {error}; what was served still is");
    let archive = update::source(place).map_err(wrong)?;
    let taken = site.replace(archive, is_whole).map_err(wrong)?;
    let files = if taken.files == 1 { "file" } else { "files" };
    println!(
        "{} {files}, {} bytes, served from now on; `site --back` takes them back. The other host \
         wants the same.",
        taken.files, taken.bytes
    );
    Ok(())
}
