//! The hands of the node: performs each of its outputs, and reads what it is to know.
//!
//! In: `node::Output`. Out: `node::Input` through one bounded queue. Must not: decide.
//! Read first: `run` (the loop that calls this).

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddrV4, TcpListener};
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use async_io::{Async, Timer};
use nix::sys::signalfd::SignalFd;
use smol::channel::{Receiver, Sender};

use super::control::{Asked, Clients};
use super::data::Data;
use super::mysql::LocalServer;
use super::network::{Executor, Network};
use super::notes::{self, ToGuard};
use super::{clock, control, errant, file, init, metrics, own, update};
use crate::config::Config;
use crate::console::message::{Level, Power, Request, Response};
use crate::console::note::Note;
use crate::console::status::{ChildStatus, Glance};
use crate::node::{DataPlane, Input, Output};
use crate::wire::HostId;

/// Everything that the node's outputs touch.
#[derive(Debug)]
pub struct Hands {
    executor: Executor,
    inputs: Sender<Input>,
    network: Network,
    database: LocalServer,
    /// The same, for writes that are not logged.
    unlogged: LocalServer,
    database_address: SocketAddrV4,
    /// How a further process of this program finds the configuration and this host in it.
    own_arguments: [String; 4],
    data: Rc<RefCell<Data>>,
    /// What the data plane came to since the node was told.
    facts: Rc<Cell<Option<DataPlane>>>,
    /// Ends the data plane's wait when it was given other routes.
    rerouted: (Sender<()>, Receiver<()>),
    clients: Rc<Clients>,
    started_at: crate::time::Instant,
    /// How often this process died before.
    restarts: u32,
}

/// Notes on the status screen, and in one answer to `log`.
const NOTES_IN_STATUS: usize = 20;
const NOTES_PER_FRAME: usize = 20;
const CONFIG_BYTES_PER_FRAME: usize = 32 * 1024;
/// For as long as a database may take to come up.
const FINISH_ATTEMPTS: usize = 60;
const FINISH_INTERVAL: Duration = Duration::from_secs(5);

/// The node asked to end.
#[derive(Debug)]
pub struct Exit;

impl Hands {
    /// Opens every socket and starts the tasks that read them.
    pub fn open(
        config: &Config,
        config_path: &str,
        me: HostId,
        executor: Executor,
        inputs: Sender<Input>,
        restarts: u32,
    ) -> io::Result<Self> {
        let network = Network::open(config, me)?;
        let database_address =
            SocketAddrV4::new(config.host(me).inside_address(), config.repl.port);
        let database = LocalServer::of(config, me);
        let name = config.host(me).name.clone();
        let own_arguments = ["--config", config_path, "--host", &name].map(str::to_owned);
        let unlogged = database.unlogged();
        let data = Rc::new(RefCell::new(Data::open(config, config_path, me)?));
        let hands = Self {
            executor,
            inputs,
            network,
            database,
            unlogged,
            database_address,
            own_arguments,
            data,
            facts: Rc::default(),
            rerouted: smol::channel::bounded(1),
            clients: Rc::default(),
            started_at: clock::now(),
            restarts,
        };
        hands.network.start_readers(&hands.executor, &hands.inputs);
        hands.start_clock_watch();
        Ok(hands)
    }

    /// What the data plane came to, once.
    #[must_use]
    pub fn take_facts(&self) -> Option<Input> {
        self.facts.take().map(Input::DataPlane)
    }

    pub fn perform(&self, output: Output) -> Result<(), Exit> {
        match output {
            Output::SendVrrp { link, datagram } => {
                log_failure("advertisement", self.network.link(link).send_vrrp(&datagram));
            }
            Output::SendFrame { device, frame } => {
                log_failure("frame", self.network.send_frame(device, &frame));
            }
            Output::SendBeacon { link, datagram } => {
                log_failure("beacon", self.network.link(link).send_beacon(&datagram));
            }
            Output::SendEcho { destination, message } => {
                log_failure("echo", self.network.send_echo(destination, &message));
            }
            Output::Netlink { request } => {
                log_failure("netlink", self.network.send_netlink(&request));
            }
            Output::Query { id, sql, limit } => self.query(&self.database, id, sql, limit),
            Output::Probe { id, sql, limit } => self.query(&self.unlogged, id, sql.into(), limit),
            Output::TakeUpdate { id, place } => self.take_update(id, &place),
            Output::EndDatabase => {
                let order = ToGuard::EndDatabase(self.database_address);
                log_failure("end of the database", notes::order_guard(&order));
            }
            Output::SaveErrant { known } => self.save_errant(&known),
            Output::TakeBack { directory } => self.take_back(&directory),
            Output::CopyDatabase => self.copy_database(),
            Output::Routes(routes) => {
                let facts = self.data.borrow_mut().set_routes(clock::now(), &routes);
                self.facts.set(Some(facts));
                // Deadlines may have moved. A full queue has a notice in it already.
                let _full = self.rerouted.0.try_send(());
            }
            Output::Persist(state) => {
                if let Err(error) = file::save_state(&state) {
                    // Serving with an epoch that is not on disk could make two sources.
                    notes::tell(&Note::StateUnwritable { why: error.to_string() });
                    return Err(Exit);
                }
            }
            Output::Will(will) => {
                log_failure("will", notes::order_guard(&ToGuard::Will(will)));
            }
            Output::Reply { client, response } => {
                let _gone = self.clients.reply(client, response);
            }
            Output::Reload { client } => {
                let response = match self.reload() {
                    Ok(done) => Response::Done(done),
                    Err(why) => Response::Refused(why),
                };
                let _gone = self.clients.reply(client, response);
            }
            Output::Note(note) => notes::tell(&note),
            Output::Exit => return Err(Exit),
        }
        Ok(())
    }

    /// Whether somebody is connected to the splitter.
    pub fn has_programs(&self) -> bool {
        self.data.borrow().has_programs()
    }

    /// The whole file is read on the loop: a page of text, and certificates.
    fn reload(&self) -> Result<String, String> {
        let result = self.data.borrow_mut().reload(clock::now());
        match &result {
            Ok(what) => notes::tell(&Note::Reloaded { what: what.clone() }),
            Err(why) => notes::tell(&Note::ReloadRefused { why: why.clone() }),
        }
        result
    }

    fn query(&self, database: &LocalServer, id: u64, sql: String, limit: Duration) {
        let (database, inputs) = (database.clone(), self.inputs.clone());
        self.executor
            .spawn(async move {
                let result = database.query(sql, limit).await;
                let _ending = inputs.send(Input::Answer { id, result }).await;
            })
            .detach();
    }

    /// It may take long, and a binlog that cannot be read ends that process.
    fn save_errant(&self, known: &str) {
        let command = self.own_command(&["rejoin", "--save", known]);
        self.run_own(command, |said| {
            let saved = said.and_then(|said| {
                serde_json::from_slice(&said).map_err(|error| format!("rejoin --save: {error}"))
            });
            Some(Input::ErrantSaved(saved))
        });
    }

    /// Cut off at any moment, it is finished by the next one.
    fn take_back(&self, directory: &str) {
        let command = self.own_command(&["rejoin", "--take-back", directory]);
        self.run_own(command, |said| Some(Input::TookBack(said.map(drop))));
    }

    /// What was cut off with the last run, or with the machine, before its names may come again.
    pub fn finish_taking_back(self: &Rc<Self>) {
        if errant::unfinished(Path::new(errant::DIRECTORY)).is_none() {
            return;
        }
        let hands = self.clone();
        self.executor
            .spawn(async move {
                for _ in 0..FINISH_ATTEMPTS {
                    Timer::after(FINISH_INTERVAL).await;
                    let command = hands.own_command(&["rejoin", "--finish"]);
                    if own::ended(command).await.is_ok() {
                        return;
                    }
                }
            })
            .detach();
    }

    /// This program, for the same configuration and host.
    fn own_command(&self, words: &[&str]) -> Command {
        let mut command = own::command(words);
        command.args(&self.own_arguments);
        command
    }

    /// In a process of its own; what it said goes to the node.
    fn run_own(
        &self,
        command: Command,
        hand_in: impl FnOnce(Result<Vec<u8>, String>) -> Option<Input> + 'static,
    ) {
        let inputs = self.inputs.clone();
        self.executor
            .spawn(async move {
                if let Some(input) = hand_in(own::ended(command).await) {
                    let _ending = inputs.send(input).await;
                }
            })
            .detach();
    }

    /// In a process of its own, which says how far it is.
    fn copy_database(&self) {
        let mut command = self.own_command(&["reseed", "--copy"]);
        let inputs = self.inputs.clone();
        let copy = move || {
            let mut child = own::begin(&mut command)?;
            let said = child.stdout.take().map(BufReader::new);
            for line in said.into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
                let _ending = inputs.send_blocking(Input::CopyGoesOn(line));
            }
            own::end(child).map(drop)
        };
        let inputs = self.inputs.clone();
        self.executor
            .spawn(async move {
                let result = smol::unblock(copy).await;
                let _ending = inputs.send(Input::Copied(result)).await;
            })
            .detach();
    }

    /// It has the machine boot in the end.
    fn take_update(&self, id: u64, place: &str) {
        let command = own::command(&["update", place, "--yes"]);
        self.run_own(command, move |said| said.err().map(|why| Input::UpdateFailed { id, why }));
    }

    /// The wall clock's jumps, where the kernel tells them.
    fn start_clock_watch(&self) {
        let inputs = self.inputs.clone();
        self.executor
            .spawn(async move {
                let Ok(mut watch) = clock::SetWatch::start() else { return };
                while let Ok(seconds) = watch.next().await {
                    if inputs.send(Input::ClockSet { seconds }).await.is_err() {
                        return;
                    }
                }
            })
            .detach();
    }

    /// SIGTERM and SIGINT are inputs like any other; SIGHUP reads the configuration again.
    pub fn start_signals(self: &Rc<Self>, signals: SignalFd) -> io::Result<()> {
        let signals = Async::new_nonblocking(signals)?;
        let (inputs, hands) = (self.inputs.clone(), Rc::clone(self));
        self.executor
            .spawn(async move {
                loop {
                    if signals.readable().await.is_err() {
                        return;
                    }
                    while let Ok(Some(info)) = signals.get_ref().read_signal() {
                        let number = i32::try_from(info.ssi_signo).unwrap_or(0);
                        if number == nix::libc::SIGHUP {
                            let _logged = hands.reload();
                        }
                        let is_end = [nix::libc::SIGTERM, nix::libc::SIGINT].contains(&number);
                        if is_end && inputs.send(Input::Terminate).await.is_err() {
                            return;
                        }
                    }
                }
            })
            .detach();
        Ok(())
    }

    /// Takes what operators ask: what the node alone can answer goes to it.
    pub fn start_control(self: &Rc<Self>, config: &Config) {
        let (asked_in, asked) = smol::channel::bounded::<Asked>(16);
        if let Some(address) = config.console.metrics {
            match Async::<TcpListener>::bind(address) {
                Ok(listener) => {
                    let (executor, clients) = (self.executor.clone(), self.clients.clone());
                    let serve = metrics::serve(executor, listener, clients, asked_in.clone());
                    self.executor.spawn(serve).detach();
                }
                // Nobody goes without service for want of figures.
                Err(error) => {
                    let what = format!("console.metrics: {address}: {error}");
                    notes::tell(&Note::SocketTrouble { what });
                }
            }
        }
        let group = config.console.group.clone();
        let serve = control::serve(self.executor.clone(), self.clients.clone(), asked_in, group);
        self.executor
            .spawn(async move {
                if let Err(error) = serve.await {
                    let what = format!("{}: {error}", file::SOCKET);
                    notes::tell(&Note::SocketTrouble { what });
                }
            })
            .detach();
        let hands = Rc::clone(self);
        self.executor
            .spawn(async move {
                while let Ok(Asked { client, request }) = asked.recv().await {
                    if hands.answer(client, &request) {
                        continue;
                    }
                    let input =
                        Input::Control { client, request, glance: Box::new(hands.glance()) };
                    if hands.inputs.send(input).await.is_err() {
                        return;
                    }
                }
            })
            .detach();
    }

    fn glance(&self) -> Glance {
        let (sql, web) = self.data.borrow().status();
        let node = ChildStatus {
            name: "node".to_owned(),
            pid: std::process::id(),
            seconds: clock::now().since(self.started_at).as_secs(),
            restarts: self.restarts,
        };
        Glance { sql, web, children: vec![node], notes: notes::last(NOTES_IN_STATUS, Level::Info) }
    }

    /// Answers what is nothing of the node's. Whether it was that.
    fn answer(&self, client: u64, request: &Request) -> bool {
        match *request {
            Request::Config => {
                let text = self.data.borrow().effective().to_owned();
                // A line is never cut, and none is longer than a frame may be.
                let mut part = String::new();
                for line in text.split_inclusive('\n') {
                    if part.len() + line.len() > CONFIG_BYTES_PER_FRAME {
                        let part = std::mem::take(&mut part);
                        self.clients.reply(client, Response::Progress(part));
                    }
                    part.push_str(line);
                }
                self.clients.reply(client, Response::Done(part))
            }
            Request::ConsoleLogin { ref tty, is_in } => {
                let note = if is_in {
                    Note::ConsoleLogin { what: format!("{tty}: logged in") }
                } else {
                    Note::ConsoleRefused { what: format!("{tty}: a wrong password") }
                };
                notes::tell(&note);
                self.clients.reply(client, Response::Done(String::new()))
            }
            Request::Log { count, level, follow } => {
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                for some in notes::last(count, level).chunks(NOTES_PER_FRAME) {
                    self.clients.reply(client, Response::Notes(some.to_vec()));
                }
                if follow {
                    self.follow(client, level);
                } else {
                    self.clients.reply(client, Response::Done(String::new()));
                }
                true
            }
            Request::Power(power) => self.clients.reply(client, self.end_machine(power)),
            Request::UpdateKept => self.clients.reply(client, self.update_kept()),
            Request::WatchdogTest => self.clients.reply(client, self.test_watchdog()),
            Request::Status
            | Request::Switchover
            | Request::FailoverForce
            | Request::Rejoin
            | Request::Reseed
            | Request::Hold(_)
            | Request::Maintenance(_)
            | Request::Reload
            | Request::PhpDrain { .. }
            | Request::UpdatePeer { .. }
            | Request::Trace { .. } => return false,
        };
        true
    }

    /// The guard ends the machine when the node has left.
    fn end_machine(&self, power: Power) -> Response {
        self.tell_guard(&ToGuard::End(power), |hands| {
            // A full queue is a node that has not come round for long.
            let _full = hands.inputs.try_send(Input::Terminate);
            "this host leaves the pair; then its services end"
        })
    }

    fn test_watchdog(&self) -> Response {
        self.tell_guard(&ToGuard::Unfed, |_| {
            "the watchdog is not fed any more: this machine is reset within 15 s, or its watchdog \
             does not work"
        })
    }

    fn update_kept(&self) -> Response {
        match self.inputs.try_send(Input::Image(update::image())) {
            Ok(()) => Response::Done(String::new()),
            // The service that asks starts anew.
            Err(_) => Response::Refused("the node is busy".to_owned()),
        }
    }

    /// Passes an order to the guard of an appliance; `then` says what comes of it.
    fn tell_guard(&self, order: &ToGuard, then: impl FnOnce(&Self) -> &'static str) -> Response {
        if !init::is_appliance() {
            let why = "this host is no appliance: its own system does that";
            return Response::Refused(why.to_owned());
        }
        match notes::order_guard(order) {
            Ok(()) => Response::Done(then(self).to_owned()),
            Err(error) => Response::Refused(format!("the guard does not listen: {error}")),
        }
    }

    fn follow(&self, client: u64, level: Level) {
        let (notes, clients) = (notes::follow(level), Rc::clone(&self.clients));
        self.executor
            .spawn(async move {
                while let Ok(note) = notes.recv().await {
                    if !clients.reply(client, Response::Notes(vec![note])) {
                        return;
                    }
                }
            })
            .detach();
    }

    /// Serves the data plane for ever, beside the executor and not as one of its tasks: the
    /// executor runs what is runnable many times before it looks for other events, and a busy data
    /// plane is always runnable.
    pub async fn serve_data(&self) -> io::Result<()> {
        let epoll = Async::new(self.data.borrow().epoll()?)?;
        let mut known = DataPlane::default();
        // In a shift: whether anything came since it began.
        let mut shift = None;
        let mut has_more = false;
        loop {
            let turned = self.data.borrow_mut().turn(shift.is_some() && !has_more);
            has_more = turned.has_more;
            let has_come = turned.is_busy || has_more;
            let is_news = turned.facts != known;
            if is_news {
                known = turned.facts;
                self.facts.set(Some(known));
                // A full queue wakes the node all the same.
                let _full = self.inputs.try_send(Input::Wake);
            }
            shift = match shift {
                Some(came) if turned.has_rung || is_news => {
                    smol::future::yield_now().await;
                    (came || has_come).then_some(false)
                }
                Some(came) => {
                    shift = Some(came || has_come);
                    continue;
                }
                None => has_come.then_some(false),
            };
            if shift.is_some() {
                self.data.borrow().begin_shift()?;
                continue;
            }
            let deadline = self.data.borrow().deadline();
            let ready = async {
                let _closing = epoll.readable().await;
            };
            let rerouted = async {
                let _open = self.rerouted.1.recv().await;
            };
            smol::future::or(smol::future::or(ready, rerouted), sleep_until(deadline)).await;
        }
    }
}

/// Waits until `deadline`; for ever when there is none.
pub async fn sleep_until(deadline: Option<crate::time::Instant>) {
    match deadline {
        Some(at) => {
            Timer::after(at.since(clock::now())).await;
        }
        None => std::future::pending().await,
    }
}

/// What the network refuses is seen by its silence; a person who looks closer finds the reason.
fn log_failure(what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        log::debug!("{what}: {error}");
    }
}
