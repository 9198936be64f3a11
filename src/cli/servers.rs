//! Servers as the mysql-utilities applets reach them, and the engine's jobs run on them.
//!
//! In: logins, statements, jobs. Out: rows, members of a topology, how jobs ended. Must not: decide
//! what to do about a result.
//! Read first: os/mysql.rs (the connection), repl/engine.rs (the jobs).

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use super::connection::Login;
use super::say::Say;
use crate::limits;
use crate::os::clock;
use crate::os::mysql::LocalServer;
use crate::repl::topology::{Member, Readings, account_statements, accounts_query};
use crate::repl::{
    Config, Dialect, Durability, Engine, Failure, Input, Job, Outcome, Output, Rows, ServerError,
    Site, quote,
};
use crate::units::Secret;
use crate::wire::HostId;

/// A server that answered.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) login: Login,
    pub(super) address: IpAddr,
    hands: LocalServer,
    pub(super) version: String,
    pub(super) dialect: Dialect,
}

impl Server {
    /// Logs in and asks for the version. The error is what the originals print after "ERROR: ".
    pub(super) fn connect(login: &Login) -> Result<Self, String> {
        Self::connect_within(login, limits::STATEMENT_LIMIT)
    }

    fn connect_within(login: &Login, limit: Duration) -> Result<Self, String> {
        let (address, hands) = reach(login)?;
        let rows = ask(&hands, "SELECT VERSION() AS version", limit)
            .map_err(|error| complaint(login, error))?;
        let version = rows.value(0, &["version"]).unwrap_or_default().to_owned();
        let dialect = Dialect::from_version(&version).ok_or_else(|| {
            format!("{}: version {version} has no GTIDs; MySQL 5.6 or MariaDB 10", login.name())
        })?;
        Ok(Self { login: login.clone(), address, hands, version, dialect })
    }

    pub(super) fn name(&self) -> String {
        self.login.name()
    }

    pub(super) fn query(&self, sql: &str) -> Result<Rows, ServerError> {
        ask(&self.hands, sql, limits::STATEMENT_SLOW_LIMIT)
    }

    /// With the server's name in front of what is wrong.
    pub(super) fn must(&self, sql: &str) -> Result<Rows, String> {
        self.query(sql).map_err(|error| format!("{}: {}", self.name(), plain(&error)))
    }

    /// Another session, which holds what it asked for until it is dropped.
    pub(super) fn another_session(&self) -> Result<LocalServer, String> {
        reach(&self.login).map(|(_, hands)| hands)
    }

    pub(super) fn on(&self, session: &LocalServer, sql: &str) -> Result<Rows, String> {
        ask(session, sql, limits::STATEMENT_LIMIT)
            .map_err(|error| format!("{}: {}", self.name(), plain(&error)))
    }

    /// When the last transaction in this binlog was written, on the server that wrote it first;
    /// seconds since 1970. `None` where that cannot be told within `limit`.
    pub(super) fn last_written_at(&self, binlog: &str, limit: Duration) -> Option<u64> {
        let (began, mut last) = (clock::now(), None);
        for event in self.hands.session().ok()?.events(binlog).ok()? {
            let header = event.ok()?.header();
            if [QUERY_EVENT, XID_EVENT].contains(&header.event_type_raw()) {
                last = Some(u64::from(header.timestamp()));
            }
            if clock::now().since(began) > limit {
                return None;
            }
        }
        last
    }

    /// Everything that health, checks and elections need. The position comes last but one: what a
    /// replica has executed must be read before what its source has.
    pub(super) fn member(&self) -> Result<Member, String> {
        let words = self.dialect.statements();
        let variables = self.must(Member::VARIABLES)?;
        let status = self.must(words.replica_status)?;
        let gtid_sets = &self.must(words.gtid_sets)?;
        // On a full disk it hangs, and nothing but two cells of a table needs it.
        let log = ask(&self.hands, words.log_position, limits::LOOK_LIMIT).unwrap_or_default();
        let readings = Readings { variables: &variables, gtid_sets, status, log };
        let (host, port) = (&self.login.host, self.login.port);
        Member::read(host, port, self.dialect, &self.version, readings)
    }

    /// The engine speaks of hosts by IPv4 addresses.
    pub(super) fn address(&self) -> Result<Ipv4Addr, String> {
        match self.address {
            IpAddr::V4(address) => Ok(address),
            IpAddr::V6(_) => {
                Err(format!("{} has no IPv4 address, which replication needs here", self.name()))
            }
        }
    }

    /// Whether a replica that names its source like this replicates from this server.
    pub(super) fn is_called(&self, host: &str, port: u16) -> bool {
        port == self.login.port
            && (host.eq_ignore_ascii_case(&self.login.host)
                || resolve(host, port).is_some_and(|address| address.ip() == self.address))
    }

    /// The password that the server itself logs in to its source with, where it tells.
    pub(super) fn replication_password(&self, member: &Member) -> Option<String> {
        let replica = member.replica.as_ref()?;
        if self.dialect == Dialect::Mariadb {
            return None;
        }
        let sql = format!(
            "SELECT User_password AS password FROM mysql.slave_master_info WHERE User_name={}",
            quote(&replica.source_user)
        );
        let rows = self.query(&sql).ok()?;
        rows.value(0, &["password"]).map(str::to_owned).filter(|password| !password.is_empty())
    }
}

/// Every transaction has one or the other.
const QUERY_EVENT: u8 = 2;
const XID_EVENT: u8 = 16;

/// The account that replicas log in with.
#[derive(Clone)]
pub(super) struct Account {
    pub(super) user: String,
    /// Unknown: accounts are not made, and nobody can be pointed at a new source.
    pub(super) password: Option<String>,
}

/// Where the other server of a pair is.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    pub(super) port: u16,
}

impl Peer {
    pub(super) fn of(server: &Server) -> Result<Self, String> {
        let (name, port) = (server.login.host.clone(), server.login.port);
        Ok(Self { name, address: server.address()?, port })
    }

    /// By the name that the replica has for it, so that the engine recognises it.
    pub(super) fn seen_by(server: &Server, replica: &Member) -> Result<Self, String> {
        let mut peer = Self::of(server)?;
        if let Some(status) = &replica.replica
            && server.is_called(&status.source_host, status.source_port)
        {
            peer.name.clone_from(&status.source_host);
        }
        Ok(peer)
    }
}

/// An engine for one server, which knows the other one as its peer.
#[derive(Debug)]
pub(super) struct Admin<'a> {
    server: &'a Server,
    engine: Engine,
    say: &'a Say,
}

impl<'a> Admin<'a> {
    pub(super) fn new(
        server: &'a Server,
        peer: &Peer,
        account: &Account,
        drain_limit: Duration,
        say: &'a Say,
    ) -> Result<Self, String> {
        let (config, site) = pairing(server, peer, account, drain_limit)?;
        Ok(Self { server, engine: Engine::new(&config, site), say })
    }

    /// Runs the job to its end; what it has to say meanwhile is said.
    pub(super) fn run(&mut self, job: Job) -> Result<Outcome, Failure> {
        let kind = job.kind();
        self.engine.handle(clock::now(), Input::Job(job));
        loop {
            match self.engine.poll_output() {
                Some(Output::Query { id, sql, limit }) => {
                    let result = ask(&self.server.hands, &sql, limit);
                    self.engine.handle(clock::now(), Input::Answer { id, result });
                }
                Some(Output::Done { job, result }) if job == kind => return result,
                Some(Output::Progress(clause)) => {
                    self.say.own(&format!("{}: {clause}", self.server.name()));
                }
                Some(Output::Done { .. } | Output::Observed(_) | Output::Probe { .. }) => {}
                None => {
                    let deadline = self.engine.deadline().unwrap_or_default();
                    let pause = deadline.since(clock::now());
                    async_io::block_on(async_io::Timer::after(pause));
                    self.engine.handle(clock::now(), Input::Tick);
                }
            }
        }
    }
}

/// What the engine of `server` has to know.
pub(super) fn pairing(
    server: &Server,
    peer: &Peer,
    account: &Account,
    drain_limit: Duration,
) -> Result<(Config, Site), String> {
    let config = Config {
        port: peer.port,
        user: server.login.user.clone(),
        password: Secret::Text(server.login.password.clone()),
        replication_user: account.user.clone(),
        replication_password: Secret::Text(account.password.clone().unwrap_or_default()),
        drain_limit,
        close_limit: limits::FENCE_PATIENCE,
        durability: Durability::Asynchronous,
        commit_probe: false,
        is_of_a_pair: false,
        probe_interval: limits::LOOK_LIMIT,
    };
    let site = Site {
        me: HostId::First,
        addresses: [server.address()?, peer.address],
        names: [server.login.host.clone(), peer.name.clone()],
    };
    Ok((config, site))
}

/// Lets the hosts of both servers replicate; on `source`, from where it reaches its replicas. An
/// account that exists keeps its password. Yields how many statements that took.
pub(super) fn make_accounts(
    source: &Server,
    other: &Server,
    account: &Account,
) -> Result<usize, String> {
    let (config, site) = pairing(source, &Peer::of(other)?, account, Duration::ZERO)?;
    let accounts = source.must(&accounts_query(&account.user))?;
    let statements = account_statements(&config, &site, &accounts);
    if !statements.is_empty() && account.password.is_none() {
        return Err(format!(
            "The account {} is missing for one of the hosts and needs a password: write \
             --rpl-user=user:password, or set TANDEM_RPL_PASSWORD.",
            account.user
        ));
    }
    for sql in &statements {
        source.must(sql)?;
    }
    Ok(statements.len())
}

/// Whether anything at `place` speaks as a database, whoever it lets in.
pub(super) fn is_alive(login: &Login, limit: Duration) -> bool {
    let Ok((_, hands)) = reach(login) else { return false };
    match ask(&hands, "SELECT VERSION() AS version", limit) {
        Ok(_) | Err(ServerError::Refused { .. }) => true,
        Err(ServerError::Unreachable(_) | ServerError::TimedOut) => false,
    }
}

fn reach(login: &Login) -> Result<(IpAddr, LocalServer), String> {
    let resolved = resolve(&login.host, login.port);
    if let Some(socket) = &login.socket {
        let address = resolved.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip());
        return Ok((address, LocalServer::on_socket(socket, &login.user, &login.password)));
    }
    let address = resolved
        .ok_or_else(|| format!("Unknown MySQL server host '{}' (no address)", login.host))?;
    Ok((address.ip(), LocalServer::new(address, &login.user, &login.password)))
}

/// IPv4 where the name has it.
pub(super) fn resolve(host: &str, port: u16) -> Option<SocketAddr> {
    let found: Vec<SocketAddr> = (host, port).to_socket_addrs().ok()?.collect();
    found.iter().find(|address| address.is_ipv4()).or_else(|| found.first()).copied()
}

fn ask(hands: &LocalServer, sql: &str, limit: Duration) -> Result<Rows, ServerError> {
    async_io::block_on(hands.query(sql.to_owned(), limit))
}

fn complaint(login: &Login, error: ServerError) -> String {
    match error {
        ServerError::Refused { message, .. } => message,
        ServerError::Unreachable(_) | ServerError::TimedOut => {
            let why = plain(&error);
            format!("Can't connect to MySQL server on '{}' ({why})", login.name())
        }
    }
}

/// The server's own words where it has spoken.
pub(super) fn plain(error: &ServerError) -> String {
    match error {
        ServerError::Refused { message, .. } => message.clone(),
        // The driver says the address first, which whoever reads this has just been told.
        ServerError::Unreachable(reason) => match reason.rsplit_once("': ") {
            Some((_, why)) => why.trim_end_matches([' ', '}']).to_owned(),
            None => reason.clone(),
        },
        ServerError::TimedOut => error.to_string(),
    }
}
