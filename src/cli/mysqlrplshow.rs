//! `mysqlrplshow`: draws who replicates from whom.
//!
//! In: a source, an account for its replicas. Out: a graph, or a list. Must not: change anything.
//! Read first: facts/repl.md 1.2.
//! Differs: a replica that reports no host does not end the search.

use std::process::ExitCode;

use super::applet::{self, Call, Stop};
use super::connection::{Login, parse};
use super::discover;
use super::mysqlreplicate::connect;
use super::options::{Opt, Spec, flag, value};
use super::servers::Server;
use crate::console::table::{Format, render};
use crate::repl::topology::Member;

const SPEC: Spec = Spec {
    program: "mysqlrplshow",
    usage: "mysqlrplshow --master=root@localhost:3306",
    purpose: "mysqlrplshow - show slaves attached to a master",
    options: &[OPTIONS],
};

const OPTIONS: &[Opt] = &[
    value("master", "SERVER", "the source at the top"),
    value("discover-slaves-login", "USER[:PW]", "log in to the replicas so"),
    flag("show-list", Some('l'), "print a table of sources and replicas too"),
    value("format", "FORMAT", "of the table: grid (default), csv, tab or vertical").or('f'),
    flag("recurse", Some('r'), "show the replicas of replicas"),
    value("max-depth", "N", "how many levels --recurse goes down"),
    flag("prompt", Some('p'), "type the password of the servers"),
    value("num-retries", "N", "").or('n').idle("a password is asked for once, for every server"),
];

/// A replica that was found, and what replicates from it.
struct Found {
    name: String,
    /// The states of its threads.
    threads: String,
    /// It is further up in the same branch.
    is_circular: bool,
    below: Vec<Self>,
}

struct Search<'a> {
    call: &'a Call,
    account: Login,
    depth_max: Option<u64>,
    failed: Vec<String>,
}

pub(super) fn run(arguments: &[String]) -> ExitCode {
    applet::run(&SPEC, arguments, show)
}

fn show(call: &mut Call) -> Result<ExitCode, Stop> {
    let wrong = |why: &str| Err(Stop::Usage(why.to_owned()));
    let Some(master) = call.login("master")? else {
        return wrong("The master connection string is missing.");
    };
    let Some(account) = call.options.value("discover-slaves-login") else {
        return wrong("The --discover-slaves-login is required to test slave connectivity.");
    };
    let account = parse(&format!("{account}@discovered"), &call.passwords)
        .map_err(|why| Stop::Usage(format!("option --discover-slaves-login: {why}")))?;
    let format = match call.options.value("format") {
        None => Format::Grid,
        Some(text) => Format::parse(text).ok_or_else(|| {
            Stop::Usage("The --format option takes grid, csv, tab or vertical.".to_owned())
        })?,
    };
    let depth_max = match call.options.has("max-depth") {
        true => Some(call.number("max-depth", 0)?),
        false => None,
    };
    let mut search = Search { call, account, depth_max, failed: Vec::new() };
    let source = connect(call, "master", &master)?;
    let found = search.below(&source, &mut vec![source.name()], 0)?;
    call.say.line("");
    search.complain();
    print(call, &source.name(), &found, format);
    Ok(ExitCode::SUCCESS)
}

impl Search<'_> {
    /// The replicas of `source`; `above` names it and what it replicates from.
    fn below(
        &mut self,
        source: &Server,
        above: &mut Vec<String>,
        depth: u64,
    ) -> Result<Vec<Found>, Stop> {
        let say = &self.call.say;
        say.line(&format!("# Finding slaves for master: {}", source.name()));
        let recurses =
            self.call.options.has("recurse") && self.depth_max.is_none_or(|max| depth < max);
        let mut all = Vec::new();
        let reported = discover::reported(source)?;
        if reported.is_empty() {
            say.own(discover::NOBODY);
        }
        for (host, port) in reported {
            let login = Login { host, port, socket: None, ..self.account.clone() };
            let name = login.name();
            let member = match Server::connect(&login).and_then(|server| server.member()) {
                Ok(member) => member,
                Err(why) => {
                    self.failed.push(format!(" - {name}: {why}"));
                    continue;
                }
            };
            if !is_of(&member, source) {
                say.own(&discover::stranger(&name));
                continue;
            }
            let is_circular = above.contains(&name);
            let mut below = Vec::new();
            if recurses && !is_circular {
                let server = connect(self.call, "master", &login)?;
                above.push(name.clone());
                below = self.below(&server, above, depth + 1)?;
                above.pop();
            }
            all.push(Found { name, threads: threads(&member), is_circular, below });
        }
        Ok(all)
    }

    fn complain(&self) {
        if self.failed.is_empty() {
            return;
        }
        let say = &self.call.say;
        if say.verbosity == 0 {
            say.warning("Cannot connect to some slaves (--verbose for more details).");
        } else {
            say.warning("Cannot connect to some slaves:");
            self.failed.iter().for_each(|line| say.line(line));
        }
        say.line("");
    }
}

fn is_of(member: &Member, source: &Server) -> bool {
    let status = member.replica.as_ref();
    status.is_some_and(|status| source.is_called(&status.source_host, status.source_port))
}

fn threads(member: &Member) -> String {
    let io = member.of_status(&["Replica_IO_Running", "Slave_IO_Running"]);
    let sql = member.of_status(&["Replica_SQL_Running", "Slave_SQL_Running"]);
    format!("[IO: {io}, SQL: {sql}]")
}

fn print(call: &Call, source: &str, found: &[Found], format: Format) {
    let say = &call.say;
    say.line("# Replication Topology Graph");
    if found.is_empty() {
        say.result("No slaves found.\n\n");
        return;
    }
    let mut text = format!("{source} (MASTER)\n");
    draw(found, "   ", say.verbosity > 0, &mut text);
    say.result(&format!("{text}\n"));
    if call.options.has("show-list") {
        let mut rows = Vec::new();
        list(source, found, &mut rows);
        say.result(&render(format, &["Master", "Slave"], &rows));
    }
}

fn draw(found: &[Found], indent: &str, is_verbose: bool, text: &mut String) {
    for (index, replica) in found.iter().enumerate() {
        let name = &replica.name;
        let threads = if is_verbose { format!(" {}", replica.threads) } else { String::new() };
        let (arrow, role) = match (replica.is_circular, replica.below.is_empty()) {
            (true, _) => ("<-->", "(MASTER)"),
            (false, true) => ("+---", "(SLAVE)"),
            (false, false) => ("+---", "(SLAVE + MASTER)"),
        };
        let line = format!("{indent}|\n{indent}{arrow} {name}{threads} - {role}\n");
        text.push_str(&line);
        let bar = if index + 1 < found.len() { "|" } else { " " };
        draw(&replica.below, &format!("{indent}{bar}   "), is_verbose, text);
    }
}

fn list(source: &str, found: &[Found], rows: &mut Vec<Vec<String>>) {
    for replica in found {
        rows.push(vec![source.to_owned(), replica.name.clone()]);
        list(&replica.name, &replica.below, rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(name: &str, below: Vec<Found>) -> Found {
        let threads = "[IO: Yes, SQL: No]".to_owned();
        Found { name: name.to_owned(), threads, is_circular: false, below }
    }

    #[test]
    fn a_graph_shows_replicas_of_replicas() {
        let mut again = replica("a:1", vec![]);
        again.is_circular = true;
        let found = [replica("b:1", vec![again]), replica("c:1", vec![])];
        let mut text = String::new();
        draw(&found, "   ", true, &mut text);
        assert_eq!(
            text,
            "   |\n   +--- b:1 [IO: Yes, SQL: No] - (SLAVE + MASTER)\n   \
             |   |\n   |   <--> a:1 [IO: Yes, SQL: No] - (MASTER)\n   \
             |\n   +--- c:1 [IO: Yes, SQL: No] - (SLAVE)\n"
        );
        let mut rows = Vec::new();
        list("a:1", &found, &mut rows);
        assert_eq!(rows, [["a:1", "b:1"], ["b:1", "a:1"], ["a:1", "c:1"]]);
    }
}
