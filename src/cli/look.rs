//! `log`, `config`, `trace`: what the daemon tells line by line.
//!
//! Exit code 0: told. 1: no daemon answers, or it refuses.

use std::process::ExitCode;

use super::status::fetch;
use super::{value_of, wrong};
use crate::console::message::{Level, Request, Response, TraceKinds};
use crate::console::note::{Record, Ring};
use crate::console::render;
use crate::os::{control, notes};

const NOTES_SHOWN: u32 = 20;
const TRACE_SECONDS: u32 = 10;

pub(super) fn log(arguments: &[String]) -> ExitCode {
    match parse_log(arguments) {
        Ok(wanted) => tell_log(&wanted),
        Err(what) => wrong("log", &what),
    }
}

/// Which notes.
struct Wanted<'a> {
    count: u32,
    level: Level,
    follow: bool,
    /// Each of them stands in the line, its time and name included; capitals do not count.
    words: Vec<&'a str>,
}

fn parse_log(arguments: &[String]) -> Result<Wanted<'_>, String> {
    let words = Vec::new();
    let mut wanted = Wanted { count: NOTES_SHOWN, level: Level::Info, follow: false, words };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "-n" => {
                let text = value_of(argument, &mut rest)?;
                wanted.count = text.parse().map_err(|_| format!("-n {text}: write a number"))?;
            }
            "--level" => {
                let text = value_of(argument, &mut rest)?;
                let all = [Level::Error, Level::Warn, Level::Info];
                wanted.level = all
                    .into_iter()
                    .find(|level| level.word() == text)
                    .ok_or_else(|| format!("--level {text}: write error, warn or info"))?;
            }
            "-f" | "--follow" => wanted.follow = true,
            other if other.starts_with('-') => return Err(format!("does not know {other}")),
            word => wanted.words.push(word),
        }
    }
    Ok(wanted)
}

impl Wanted<'_> {
    fn is(&self, record: &Record) -> bool {
        let line = record.to_string().to_lowercase();
        self.words.iter().all(|word| line.contains(&word.to_lowercase()))
    }

    /// The last ones of these.
    fn pick(&self, mut records: Vec<Record>) -> Vec<Record> {
        records.retain(|record| self.is(record));
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        records.split_off(records.len().saturating_sub(count))
    }
}

fn tell_log(wanted: &Wanted<'_>) -> ExitCode {
    let Wanted { count, level, follow, ref words } = *wanted;
    // The last ones with these words may be older than the last ones.
    let count = if words.is_empty() { count } else { u32::MAX };
    let (mut refusal, mut before) = (None, Vec::new());
    let asked = control::ask(&Request::Log { count, level, follow }, |response| match response {
        Response::Notes(mut records) if follow => {
            records.retain(|record| wanted.is(record));
            super::put(&render::notes(&records));
        }
        Response::Notes(records) => before.extend(records),
        Response::Refused(why) => refusal = Some(why),
        Response::Done(_) | Response::Progress(_) | Response::Status(_) => {}
    });
    super::put(&render::notes(&wanted.pick(before)));
    match (asked, refusal) {
        (Ok(()), None) => ExitCode::SUCCESS,
        (Ok(()), Some(why)) => super::failed(&why),
        (Err(error), _) => {
            let left = Ring::of(notes::load()).last(usize::MAX, level);
            super::put(&render::notes(&wanted.pick(left)));
            super::failed(&error.to_string())
        }
    }
}

pub(super) fn config(arguments: &[String]) -> ExitCode {
    if !arguments.is_empty() {
        return wrong("config", "takes no arguments");
    }
    let status = match fetch() {
        Ok(status) => status,
        Err(why) => return super::failed(&why),
    };
    let peer = &status.peer;
    println!("# in use on {}, digest {}", status.host, status.config_digest);
    match (&peer.config_digest, peer.config_differs.as_slice()) {
        (None, _) => println!("# {} was never heard", peer.name),
        (Some(digest), []) if *digest == status.config_digest => {
            println!("# {} has the same", peer.name);
        }
        (Some(digest), []) => println!(
            "# {} has another text, digest {digest}: comments or the order of lines",
            peer.name
        ),
        (Some(digest), sections) => println!(
            "# {} has another one, digest {digest}: [{}] differ",
            peer.name,
            sections.join("], [")
        ),
    }
    let mut is_told = false;
    let asked = control::ask(&Request::Config, |response| match response {
        Response::Progress(part) => super::put(&part),
        Response::Done(part) => {
            super::put(&part);
            is_told = true;
        }
        Response::Refused(why) => eprintln!("tandem: {why}"),
        Response::Status(_) | Response::Notes(_) => {}
    });
    match asked {
        Ok(()) if is_told => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => super::failed(&error.to_string()),
    }
}

pub(super) fn trace(arguments: &[String]) -> ExitCode {
    match parse_trace(arguments) {
        Ok(request) => super::act::perform(&request, false),
        Err(what) => wrong("trace", &what),
    }
}

fn parse_trace(arguments: &[String]) -> Result<Request, String> {
    let (mut seconds, mut kinds) = (TRACE_SECONDS, TraceKinds::default());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--seconds" => {
                let text = value_of(argument, &mut rest)?;
                seconds = text.parse().map_err(|_| format!("--seconds {text}: write a number"))?;
            }
            "vrrp" => kinds.vrrp = true,
            "beacon" => kinds.beacon = true,
            "arp" => kinds.arp = true,
            other => return Err(format!("does not know {other}")),
        }
    }
    if kinds == TraceKinds::default() {
        kinds = TraceKinds { vrrp: true, beacon: true, arp: true };
    }
    Ok(Request::Trace { seconds, kinds })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(arguments: &[&str]) -> Result<Vec<u64>, String> {
        let record = |number: u64, level, name: &str, text: &str| {
            let at_ms = 1_700_000_000_000 + number * 86_400_000;
            Record { number, at_ms, level, name: name.to_owned(), text: text.to_owned() }
        };
        let records = vec![
            record(1, Level::Info, "role-changed", "joining -> standby"),
            record(2, Level::Warn, "diverged", "this database has too much"),
            record(3, Level::Info, "role-changed", "standby -> promoting"),
            record(4, Level::Info, "role-changed", "promoting -> active"),
        ];
        let arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
        let wanted = parse_log(&arguments)?;
        Ok(wanted.pick(records).iter().map(|it| it.number).collect())
    }

    #[test]
    fn notes_are_picked_by_words_and_the_last_of_them_are_shown() {
        assert_eq!(wanted(&[]), Ok(vec![1, 2, 3, 4]));
        assert_eq!(wanted(&["Diverged"]), Ok(vec![2]), "a name");
        assert_eq!(wanted(&["standby", "role-changed"]), Ok(vec![1, 3]), "all of them");
        assert_eq!(wanted(&["role-changed", "-n", "2"]), Ok(vec![3, 4]), "the last of these");
        assert_eq!(wanted(&["2023-11-18"]), Ok(vec![4]), "a day");
        assert_eq!(wanted(&["nothing"]), Ok(vec![]));
        assert!(wanted(&["--grep"]).is_err());
        assert!(wanted(&["-n", "two"]).is_err());
    }
}
