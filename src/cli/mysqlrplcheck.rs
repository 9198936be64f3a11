//! `mysqlrplcheck`: whether a source and its replica fit each other.
//!
//! In: two servers. Out: one line a test. Must not: change anything.
//! Read first: repl/check.rs (the tests); facts/repl.md 1.3.
//! Differs: further tests follow the eleven of the original; a [WARN] among them leaves the exit
//! code alone, a [FAIL] does not.

use std::process::ExitCode;

use super::applet::{self, Call, Stop};
use super::mysqlreplicate::{connect, engines};
use super::options::{Opt, Spec, flag, value};
use super::servers::Server;
use crate::limits;
use crate::os::clock;
use crate::repl::check::{
    Check, FRAGILE_TABLES, Findings, Verdict, further, original, unstopped_accounts,
};
use crate::repl::topology::{Member, accounts_query};
use crate::repl::{Dialect, Rows, ThreadState};

const SPEC: Spec = Spec {
    program: "mysqlrplcheck",
    usage: "mysqlrplcheck --master=root@localhost:3306 --slave=root@localhost:3310",
    purpose: "mysqlrplcheck - check replication",
    options: &[OPTIONS],
};

const OPTIONS: &[Opt] = &[
    value("master", "SERVER", "the source"),
    value("slave", "SERVER", "its replica"),
    value("master-info-file", "FILE", "").idle("the slave itself is asked, not its files"),
    flag("show-slave-status", Some('s'), "print the replica's status too"),
    value("width", "N", "columns of a line (75)"),
    flag("suppress", None, "take a [WARN] for passed, without its reason"),
    flag("prompt", Some('p'), "type the password of both servers"),
];

pub(super) fn run(arguments: &[String]) -> ExitCode {
    applet::run(&SPEC, arguments, check)
}

fn check(call: &mut Call) -> Result<ExitCode, Stop> {
    let wrong = |why: &str| Err(Stop::Usage(why.to_owned()));
    let (Some(master), Some(slave)) = (call.login("master")?, call.login("slave")?) else {
        return wrong("You must specify both --master and --slave.");
    };
    if (&master.host, master.port, &master.socket) == (&slave.host, slave.port, &slave.socket) {
        return wrong("You cannot use the master as a slave.");
    }
    let width = usize::try_from(call.number("width", 75)?).unwrap_or(75);
    let source = connect(call, "master", &master)?;
    let replica = connect(call, "slave", &slave)?;
    let of_replica = replica.member()?;
    let of_source = source.member()?;
    let said = Said::gather(&source, &replica, &of_source, &of_replica)?;
    let findings = said.findings(&source, &replica, &of_source, &of_replica);

    let rest = width.saturating_sub("Status".len());
    call.say.line(&format!("{:<rest$}Status", "Test Description"));
    call.say.line(&"-".repeat(width));
    let mut is_well = true;
    for check in original(&findings) {
        print(call, &check, width);
        let is_passed = match check.verdict {
            Verdict::Pass => true,
            Verdict::Warn => call.options.has("suppress"),
            Verdict::Fail => false,
        };
        is_well &= is_passed;
    }
    if call.options.has("show-slave-status") {
        show_status(call, &of_replica);
    }
    call.say.own("further tests, which mysqlrplcheck does not have");
    for check in further(&findings) {
        print(call, &check, width);
        is_well &= check.verdict != Verdict::Fail;
    }
    call.say.line("# ...done.");
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the tests need beside the two members.
struct Said {
    /// What the replica has executed a moment after the source was read.
    later: Member,
    accounts: [Rows; 2],
    addresses: [String; 2],
    master_info: Rows,
    innodb: [Rows; 2],
    engines: [Vec<String>; 2],
    fragile_tables: Vec<String>,
    unstopped: Vec<String>,
}

impl Said {
    fn gather(
        source: &Server,
        replica: &Server,
        of_source: &Member,
        of_replica: &Member,
    ) -> Result<Self, String> {
        let user = of_replica.replica.as_ref().map_or("", |status| &status.source_user);
        let accounts = accounts_query(user);
        let innodb = "SELECT plugin_version, plugin_type_version \
                      FROM INFORMATION_SCHEMA.PLUGINS WHERE LOWER(plugin_name) = 'innodb'";
        let master_info = match replica.dialect {
            Dialect::Mariadb => Rows::default(),
            Dialect::Mysql56 | Dialect::Mysql57 | Dialect::Mysql80 | Dialect::Mysql84 => {
                replica.must("SELECT * FROM mysql.slave_master_info")?
            }
        };
        Ok(Self {
            later: caught_up(replica, of_source, of_replica)?,
            accounts: [source.must(&accounts)?, replica.must(&accounts)?],
            addresses: [source.address.to_string(), replica.address.to_string()],
            master_info,
            innodb: [source.must(innodb)?, replica.must(innodb)?],
            engines: [engines(source)?, engines(replica)?],
            fragile_tables: first_column(&source.must(FRAGILE_TABLES)?),
            unstopped: match unstopped_accounts(replica.dialect, &replica.login.user) {
                Some(sql) => first_column(&replica.must(&sql)?),
                None => Vec::new(),
            },
        })
    }

    fn findings<'a>(
        &'a self,
        source: &'a Server,
        replica: &'a Server,
        of_source: &'a Member,
        of_replica: &'a Member,
    ) -> Findings<'a> {
        let status = of_replica.replica.as_ref();
        Findings {
            source: of_source,
            replica: of_replica,
            is_of_source: status
                .is_some_and(|status| source.is_called(&status.source_host, status.source_port)),
            behind: of_source.executed.beyond(&self.later.executed),
            accounts: [&self.accounts[0], &self.accounts[1]],
            hosts: [
                [&source.login.host, &self.addresses[0]],
                [&replica.login.host, &self.addresses[1]],
            ],
            master_info: &self.master_info,
            innodb: [&self.innodb[0], &self.innodb[1]],
            engines: [&self.engines[0], &self.engines[1]],
            fragile_tables: &self.fragile_tables,
            unstopped: &self.unstopped,
        }
    }
}

fn first_column(rows: &Rows) -> Vec<String> {
    rows.rows.iter().filter_map(|row| row.first().cloned().flatten()).collect()
}

/// A replica at work is always a few transactions behind, and not for long.
fn caught_up(replica: &Server, of_source: &Member, before: &Member) -> Result<Member, String> {
    let is_at_work =
        before.replica.as_ref().is_some_and(|status| status.sql == ThreadState::Running);
    let began = clock::now();
    let mut later = before.clone();
    while is_at_work
        && of_source.executed.beyond(&later.executed).transactions > 0
        && clock::now().since(began) < limits::LOOK_LIMIT
    {
        async_io::block_on(async_io::Timer::after(limits::LOOK_PAUSE_MAX));
        later = replica.member()?;
    }
    Ok(later)
}

fn print(call: &Call, check: &Check, width: usize) {
    let (word, is_passed) = match check.verdict {
        Verdict::Pass => ("[pass]", true),
        Verdict::Warn => ("[WARN]", false),
        Verdict::Fail => ("[FAIL]", false),
    };
    if call.say.is_quiet && is_passed {
        return;
    }
    let rest = width.saturating_sub(word.len()).max(check.name.len() + 1);
    let mut text = format!("{:<rest$}{word}\n", check.name);
    let mut block = |lines: &[String]| {
        if !lines.is_empty() {
            text += &format!("\n{}\n\n", lines.join("\n"));
        }
    };
    let is_suppressed = check.verdict == Verdict::Warn && call.options.has("suppress");
    if !is_suppressed {
        block(&check.details);
    }
    if call.say.verbosity > 0 {
        block(&check.verbose);
    }
    call.say.result(&text);
}

fn show_status(call: &Call, replica: &Member) {
    let mut text = "\n#\n# Slave status: \n#\n".to_owned();
    let cells = replica.status.rows.first().into_iter().flatten();
    for (name, cell) in replica.status.columns.iter().zip(cells) {
        let value = cell.as_deref().unwrap_or("None").replace('\n', "");
        text += &format!("{name:>30} : {value}\n");
    }
    call.say.result(&text);
}
