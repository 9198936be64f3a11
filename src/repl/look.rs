//! One look at the local database: its version, its variables, its state as a replica.
//!
//! In: rows. Out: the next query, then `Facts`. Must not: change anything, keep anything between
//! looks except the version.
//! Read first: facts/repl.md section 2 (columns), 3.7 (settings a member of a pair needs).

use super::dialect::Dialect;
use super::gtid::{BinlogState, Flavour, Malformed, Position};
use super::probe::Commits;
use super::rows::Rows;

/// What the local database is, as the rest of the node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    pub state: State,
    /// As VERSION() says; empty until the first answer.
    pub version: String,
    pub flavour: Option<Flavour>,
    pub server_id: u32,
    pub server_uuid: String,
    /// Nobody but an administrator can write.
    pub is_read_only: bool,
    /// What it has executed, in its own family's text; `None` until known.
    pub position: Option<String>,
    pub replica: Option<ReplicaStatus>,
    pub semi_sync: SemiSync,
    pub commits: Commits,
    /// Settings that keep it from being a member of a pair, each as one clause.
    pub unfit: Vec<String>,
}

impl Default for Observation {
    fn default() -> Self {
        Self {
            state: State::Unreachable("not looked at yet".to_owned()),
            version: String::new(),
            flavour: None,
            server_id: 0,
            server_uuid: String::new(),
            is_read_only: false,
            position: None,
            replica: None,
            semi_sync: SemiSync::default(),
            commits: Commits::default(),
            unfit: Vec::new(),
        }
    }
}

/// Semi-synchronous replication, as both halves stand on this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SemiSync {
    /// Whether the half is on; `None` where the server has none.
    pub source: Option<bool>,
    pub replica: Option<bool>,
    /// Replicas that are connected and acknowledge; of a source.
    pub replicas: u64,
    /// Sessions that wait for an acknowledgement, and how many commits ever had theirs.
    pub waiting: u64,
    pub acknowledged: u64,
    /// Commits have to wait, says the server, and how many ever ended without.
    pub is_active: bool,
    pub unacknowledged: u64,
}

impl SemiSync {
    /// Both halves are there.
    #[must_use]
    pub const fn is_available(&self) -> bool {
        self.source.is_some() && self.replica.is_some()
    }

    /// No commit is acknowledged before the replica has it.
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        self.source == Some(true) && self.replicas > 0
    }

    /// From rows of a name and a value; old and new servers name the halves differently.
    pub(super) fn parse(variables: &Rows, status: &Rows) -> Self {
        let find = |rows: &Rows, names: [&str; 2]| {
            let mut found = rows.rows.iter().filter(|row| {
                let name = row.first().and_then(Option::as_deref).unwrap_or_default();
                names.iter().any(|it| it.eq_ignore_ascii_case(name))
            });
            found.next().and_then(|row| row.get(1).cloned().flatten())
        };
        let half = |names| find(variables, names).map(|value| is_on(&value));
        let count = |names| find(status, names).and_then(|value| value.parse().ok()).unwrap_or(0);
        Self {
            source: half(["rpl_semi_sync_source_enabled", "rpl_semi_sync_master_enabled"]),
            replica: half(["rpl_semi_sync_replica_enabled", "rpl_semi_sync_slave_enabled"]),
            replicas: count(["Rpl_semi_sync_source_clients", "Rpl_semi_sync_master_clients"]),
            waiting: count([
                "Rpl_semi_sync_source_wait_sessions",
                "Rpl_semi_sync_master_wait_sessions",
            ]),
            acknowledged: count(["Rpl_semi_sync_source_yes_tx", "Rpl_semi_sync_master_yes_tx"]),
            is_active: find(status, ["Rpl_semi_sync_source_status", "Rpl_semi_sync_master_status"])
                .is_some_and(|value| is_on(&value)),
            unacknowledged: count(["Rpl_semi_sync_source_no_tx", "Rpl_semi_sync_master_no_tx"]),
        }
    }
}

/// Whether the database answers. When it does not, everything else in an observation is as old as
/// the last time it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Up,
    /// It answers, but not to us: too many connections, a changed password. It is not dead.
    Denied(String),
    Unreachable(String),
}

/// The local database as a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaStatus {
    pub source_host: String,
    pub source_port: u16,
    pub source_user: String,
    /// Known once it was connected to; MariaDB has none.
    pub source_uuid: String,
    /// The thread that receives.
    pub io: ThreadState,
    /// The thread that applies.
    pub sql: ThreadState,
    /// `None` while it is not known, which is not zero.
    pub lag_seconds: Option<u64>,
    pub io_errno: u32,
    pub io_error: String,
    pub sql_errno: u32,
    pub sql_error: String,
    /// What was received: a set (MySQL), or the position reached in each domain (MariaDB).
    pub retrieved: String,
    /// The applier waits for more: everything whole in the relay log is applied.
    pub has_read_all: bool,
    /// Positions are found by GTID.
    pub is_by_gtid: bool,
    /// How far the applier is kept behind its source on purpose.
    pub delay_seconds: u64,
}

impl ReplicaStatus {
    /// Both threads run.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.io == ThreadState::Running && self.sql == ThreadState::Running
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ThreadState {
    Running,
    Connecting,
    Stopped,
    Unknown(String),
}

/// Everything that a job decides by.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) dialect: Dialect,
    /// read_only, and super_read_only where it exists.
    pub(super) is_closed: bool,
    pub(super) is_read_only: bool,
    pub(super) position: Position,
    /// MariaDB: what its replica position has to be before it follows, and is not.
    pub(super) position_to_adopt: Option<String>,
    /// ON, OFF or DISABLED.
    pub(super) event_scheduler: String,
    pub(super) replica: Option<ReplicaStatus>,
    pub(super) unfit: Vec<String>,
    /// MariaDB: gtid_strict_mode.
    pub(super) is_strict: bool,
    pub(super) server_id: u32,
    pub(super) server_uuid: String,
}

impl Facts {
    pub(super) fn parse(dialect: Dialect, variables: &Rows, status: &Rows) -> Result<Self, String> {
        let text = |name: &str| variables.value(0, &[name]).unwrap_or_default();
        let malformed = |wrong: Malformed| format!("cannot read its position: {wrong}");
        let position = Position::parse(dialect.flavour(), text("position"))
            .and_then(|executed| {
                // A MariaDB seeded from a copy has a replica position, and nothing in its binlog.
                let copied = Position::parse(dialect.flavour(), text("replica_position"))?;
                Ok(executed.union(&copied))
            })
            .map_err(malformed)?;
        let position_to_adopt = match dialect.flavour() {
            Flavour::Mysql => None,
            Flavour::Mariadb => {
                position_to_adopt(text("binlog_position"), text("replica_position"))
                    .map_err(malformed)?
            }
        };
        if variables.rows.is_empty() {
            return Err("its variables came back empty".to_owned());
        }
        let server_id = text("server_id").parse().unwrap_or(0);
        Ok(Self {
            dialect,
            is_closed: is_on(text("is_closed")) && is_on(text("read_only")),
            is_read_only: is_on(text("read_only")),
            position,
            position_to_adopt,
            event_scheduler: text("event_scheduler").to_owned(),
            replica: replica_status(status),
            unfit: unfit(variables, status, server_id),
            is_strict: is_on(text("is_strict")),
            server_id,
            server_uuid: text("server_uuid").to_owned(),
        })
    }

    pub(super) const fn is_open_source(&self) -> bool {
        !self.is_read_only && self.replica.is_none()
    }

    pub(super) fn write_into(&self, observation: &mut Observation) {
        observation.state = State::Up;
        observation.server_id = self.server_id;
        observation.server_uuid.clone_from(&self.server_uuid);
        observation.is_read_only = self.is_read_only;
        observation.position = Some(self.position.to_string());
        observation.replica.clone_from(&self.replica);
        observation.unfit.clone_from(&self.unfit);
        if !self.is_open_source() {
            observation.commits = Commits::End;
        }
    }
}

/// The binlog knows best, where it knows: a domain that came with a copy of another server is only
/// in the replica position, and starting without it would apply that domain's history again.
fn position_to_adopt(binlog: &str, replica: &str) -> Result<Option<String>, Malformed> {
    let replica = BinlogState::parse(replica)?;
    let wanted = BinlogState::parse(binlog)?.with_domains_of(&replica);
    Ok((wanted != replica).then(|| wanted.to_string()))
}

fn is_on(value: &str) -> bool {
    value == "1" || value.eq_ignore_ascii_case("ON")
}

fn unfit(variables: &Rows, status: &Rows, server_id: u32) -> Vec<String> {
    let mut unfit = Vec::new();
    if variables.value(0, &["unfinished_copies"]).is_some_and(|count| count != "0") {
        // See `copy::MARKER`.
        unfit
            .push("the copy of the other host's database is not whole: `tandem reseed`".to_owned());
    }
    for name in ["log_bin", "log_slave_updates", "gtid_mode"] {
        let value = variables.value(0, &[name]).unwrap_or_default();
        if !is_on(value) {
            unfit.push(format!("{name} is {value}, and must be ON"));
        }
    }
    if server_id == 0 {
        unfit.push("server_id is 0, and must differ from host to host".to_owned());
    }
    if status.rows.len() > 1 {
        unfit.push("it replicates from several sources, and a pair has one".to_owned());
    }
    unfit
}

/// The first row is the default channel. `None`: no source is configured.
pub(super) fn replica_status(status: &Rows) -> Option<ReplicaStatus> {
    let text = |names: &[&str]| status.value(0, names).unwrap_or_default().to_owned();
    let number = |names: &[&str]| text(names).parse().unwrap_or(0);
    let source_host = text(&["Source_Host", "Master_Host"]);
    if source_host.is_empty() {
        return None;
    }
    let using_gtid = text(&["Auto_Position", "Using_Gtid"]);
    Some(ReplicaStatus {
        source_host,
        source_port: text(&["Source_Port", "Master_Port"]).parse().unwrap_or(0),
        source_user: text(&["Source_User", "Master_User"]),
        source_uuid: text(&["Source_UUID", "Master_UUID"]),
        io: thread_state(&text(&["Replica_IO_Running", "Slave_IO_Running"])),
        sql: thread_state(&text(&["Replica_SQL_Running", "Slave_SQL_Running"])),
        lag_seconds: text(&["Seconds_Behind_Source", "Seconds_Behind_Master"]).parse().ok(),
        io_errno: number(&["Last_IO_Errno"]),
        io_error: text(&["Last_IO_Error"]),
        sql_errno: number(&["Last_SQL_Errno"]),
        sql_error: text(&["Last_SQL_Error"]),
        retrieved: text(&["Retrieved_Gtid_Set", "Gtid_IO_Pos"]),
        has_read_all: text(&["Replica_SQL_Running_State", "Slave_SQL_Running_State"])
            .contains("has read all relay log"),
        is_by_gtid: matches!(using_gtid.as_str(), "1" | "Slave_Pos" | "Current_Pos"),
        delay_seconds: text(&["SQL_Delay"]).parse().unwrap_or(0),
    })
}

fn thread_state(text: &str) -> ThreadState {
    match text {
        "Yes" => ThreadState::Running,
        "Connecting" | "Preparing" => ThreadState::Connecting,
        "No" => ThreadState::Stopped,
        other => ThreadState::Unknown(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(columns: &[(&str, &str)]) -> Rows {
        Rows {
            columns: columns.iter().map(|(name, _)| (*name).to_owned()).collect(),
            rows: vec![columns.iter().map(|(_, value)| Some((*value).to_owned())).collect()],
        }
    }

    const FIT: [(&str, &str); 4] =
        [("log_bin", "1"), ("log_slave_updates", "1"), ("gtid_mode", "ON"), ("server_id", "1")];

    #[test]
    fn old_and_new_column_names_mean_the_same() {
        let old = replica_status(&rows(&[
            ("Slave_IO_State", "x"),
            ("Master_Host", "10.0.0.1"),
            ("Slave_IO_Running", "Connecting"),
            ("Slave_SQL_Running", "Yes"),
            ("Seconds_Behind_Master", "7"),
            ("Gtid_IO_Pos", "0-1-5"),
            ("Using_Gtid", "Slave_Pos"),
        ]));
        let new = replica_status(&rows(&[
            ("Source_Host", "10.0.0.1"),
            ("Replica_IO_Running", "Connecting"),
            ("Replica_SQL_Running", "Yes"),
            ("Seconds_Behind_Source", "7"),
            ("Retrieved_Gtid_Set", "0-1-5"),
            ("Auto_Position", "1"),
        ]));
        assert_eq!(old, new);
        let status = new.expect("a source is configured");
        assert_eq!((status.io, status.lag_seconds), (ThreadState::Connecting, Some(7)));
    }

    #[test]
    fn no_row_and_no_host_mean_no_replica() {
        assert_eq!(replica_status(&Rows::default()), None);
        assert_eq!(replica_status(&rows(&[("Master_Host", "")])), None);
    }

    #[test]
    fn a_setting_that_breaks_the_pair_is_named() {
        let mut variables = FIT.to_vec();
        variables[1].1 = "0";
        variables[3].1 = "0";
        variables.push(("unfinished_copies", "1"));
        let facts = Facts::parse(Dialect::Mysql56, &rows(&variables), &Rows::default());
        assert_eq!(
            facts.expect("parses").unfit,
            [
                "the copy of the other host's database is not whole: `tandem reseed`",
                "log_slave_updates is 0, and must be ON",
                "server_id is 0, and must differ from host to host"
            ]
        );
    }

    #[test]
    fn a_copied_mariadb_counts_its_replica_position_as_executed() {
        let mut variables = FIT.to_vec();
        variables.extend([("position", "0-2-9"), ("replica_position", "0-1-7,1-1-4")]);
        let facts = Facts::parse(Dialect::Mariadb, &rows(&variables), &Rows::default());
        assert_eq!(facts.expect("parses").position.to_string(), "0-1-7,0-2-9,1-1-4");
    }

    #[test]
    fn a_domain_that_only_a_copy_knows_of_is_kept_when_following() {
        for (binlog, replica, expected) in [
            ("", "", None),
            ("", "0-1-7", None),
            ("0-1-7", "", Some("0-1-7")),
            ("0-2-9", "0-1-7,1-1-4", Some("0-2-9,1-1-4")),
            ("0-2-9,1-1-4", "0-2-9,1-1-4", None),
        ] {
            let adopted = position_to_adopt(binlog, replica).expect("positions");
            assert_eq!(adopted.as_deref(), expected, "{binlog:?}, {replica:?}");
        }
    }
}
