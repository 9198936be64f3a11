//! The hands of the node: performs each of its outputs, and reads what it is to know.
//!
//! In: `node::Output`. Out: `node::Input` through one bounded queue. Must not: decide.
//! Read first: `run` (the loop that calls this).

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use async_io::{Async, Timer};
use nix::sys::signalfd::SignalFd;
use smol::LocalExecutor;
use smol::channel::Sender;

use super::control::{Asked, Clients};
use super::data::Data;
use super::link::{DeviceSockets, Endpoints, LinkSockets};
use super::mysql::LocalServer;
use super::{clock, control, file, route};
use crate::config::Config;
use crate::console::message;
use crate::limits;
use crate::net::netlink;
use crate::node::{DataPlane, Input, Output};
use crate::wire::{DeviceId, HostId, LinkId};

type Executor = Rc<LocalExecutor<'static>>;

/// Everything that the node's outputs touch.
#[derive(Debug)]
pub struct Hands {
    executor: Executor,
    inputs: Sender<Input>,
    links: Rc<[LinkSockets; 2]>,
    /// By `DeviceId`.
    devices: Rc<[DeviceSockets]>,
    netlink: Rc<Async<OwnedFd>>,
    database: LocalServer,
    data: Rc<RefCell<Data>>,
    /// What the data plane came to since the node was told.
    facts: Rc<Cell<Option<DataPlane>>>,
    clients: Rc<Clients>,
}

/// The node asked to end.
#[derive(Debug)]
pub struct Exit;

impl Hands {
    /// Opens every socket and starts the tasks that read them.
    pub fn open(
        config: &Config,
        me: HostId,
        executor: Executor,
        inputs: Sender<Input>,
    ) -> io::Result<Self> {
        let [outside, inside] = LinkId::ALL.map(|link| open_link(config, me, link));
        let links = Rc::new([outside?, inside?]);
        let has_ipv6 =
            config.links.iter().flat_map(|it| &it.vip).any(|vip| vip.address.address.is_ipv6());
        let devices = config.devices().into_iter();
        let devices = devices.map(|name| DeviceSockets::open(name, has_ipv6));
        let devices = devices.collect::<io::Result<Vec<_>>>()?.into();
        let netlink = Rc::new(Async::new_nonblocking(route::open(netlink::GROUPS)?)?);
        let own = (config.host(me).inside_address(), config.repl.port);
        let database =
            LocalServer::new(own.into(), &config.repl.user, config.repl.password.reveal());
        let data = Rc::new(RefCell::new(Data::open(config, me)?));
        let hands = Self {
            executor,
            inputs,
            links,
            devices,
            netlink,
            database,
            data,
            facts: Rc::default(),
            clients: Rc::default(),
        };
        hands.start_readers();
        hands.start_clock_watch();
        hands.start_control();
        hands.start_data()?;
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
                log_failure("advertisement", self.link(link).send_vrrp(&datagram));
            }
            Output::SendFrame { device, frame } => {
                let sent = self.devices.get(device.index()).map(|sockets| sockets.send(&frame));
                log_failure("frame", sent.unwrap_or(Ok(())));
            }
            Output::SendBeacon { link, datagram } => {
                log_failure("beacon", self.link(link).send_beacon(&datagram));
            }
            Output::Netlink { request } => {
                log_failure("netlink", route::send(self.netlink.get_ref(), &request));
            }
            Output::Query { id, sql, limit } => self.query(id, sql, limit),
            Output::Routes(routes) => {
                let facts = self.data.borrow_mut().set_routes(clock::now(), &routes);
                self.facts.set(Some(facts));
            }
            Output::Persist(state) => {
                if let Err(error) = file::save_state(&state) {
                    // Serving with an epoch that is not on disk could make two sources.
                    log::error!("cannot write the state: {error}");
                    return Err(Exit);
                }
            }
            Output::Will(will) => {
                let mut stdout = io::stdout().lock();
                let written = stdout.write_all(&message::encode(&will));
                log_failure("will", written.and_then(|()| stdout.flush()));
            }
            Output::Reply { client, response } => self.clients.reply(client, response),
            Output::Note(note) => log::log!(note.level(), "{note}"),
            Output::Exit => return Err(Exit),
        }
        Ok(())
    }

    fn link(&self, link: LinkId) -> &LinkSockets {
        &self.links[link.index()]
    }

    fn query(&self, id: u64, sql: String, limit: Duration) {
        let (database, inputs) = (self.database.clone(), self.inputs.clone());
        self.executor
            .spawn(async move {
                let result = database.query(sql, limit).await;
                let _ending = inputs.send(Input::Answer { id, result }).await;
            })
            .detach();
    }

    fn start_readers(&self) {
        for link in LinkId::ALL {
            for place in 0..self.links[link.index()].vrrp.len() {
                let sockets = self.links.clone();
                self.spawn_reader(async move |buffer| {
                    let receiver = &sockets[link.index()].vrrp[place];
                    Ok((receiver.receive(buffer).await?, Make::Vrrp(link)))
                });
            }
            let sockets = self.links.clone();
            self.spawn_reader(async move |buffer| {
                let count = sockets[link.index()].beacon.recv(buffer).await?;
                Ok((count, Make::Beacon(link)))
            });
        }
        for (place, sockets) in self.devices.iter().enumerate() {
            let Some(device) = DeviceId::new(place) else { continue };
            for number in 0..sockets.frames.len() {
                let devices = self.devices.clone();
                self.spawn_reader(async move |buffer| {
                    let socket = &devices[place].frames[number];
                    let read = |fd: &OwnedFd| Ok(rustix::io::read(fd, &mut buffer[..])?);
                    Ok((socket.read_with(read).await?, Make::Frame(device)))
                });
            }
        }
        let socket = self.netlink.clone();
        self.spawn_reader(async move |buffer| {
            match socket.read_with(|fd| route::receive(fd, buffer)).await {
                Ok(count) => Ok((count, Make::Netlink)),
                // netlink(7): the socket's buffer was too small for what happened.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {
                    Ok((0, Make::NetlinkLost))
                }
                Err(error) => Err(error),
            }
        });
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

    /// Reads one socket for ever, a bounded number of datagrams before others get their turn.
    fn spawn_reader<F>(&self, mut receive: F)
    where
        F: AsyncFnMut(&mut [u8]) -> io::Result<(usize, Make)> + 'static,
    {
        let inputs = self.inputs.clone();
        self.executor
            .spawn(async move {
                let mut buffer = vec![0; 32 * 1024];
                loop {
                    for _ in 0..limits::DATAGRAMS_PER_TURN {
                        match receive(&mut buffer).await {
                            Ok((count, make)) => {
                                let datagram = buffer.get(..count).unwrap_or(&[]).to_vec();
                                if inputs.send(make.call(datagram)).await.is_err() {
                                    return;
                                }
                            }
                            // The interface is down, or the queue overflowed: go on reading.
                            Err(error) => {
                                log::debug!("receive: {error}");
                                Timer::after(Duration::from_millis(50)).await;
                            }
                        }
                    }
                    smol::future::yield_now().await;
                }
            })
            .detach();
    }

    /// SIGTERM and SIGINT are inputs like any other.
    pub fn start_signals(&self, signals: SignalFd) -> io::Result<()> {
        let signals = Async::new_nonblocking(signals)?;
        let inputs = self.inputs.clone();
        self.executor
            .spawn(async move {
                loop {
                    if signals.readable().await.is_err() {
                        return;
                    }
                    while let Ok(Some(info)) = signals.get_ref().read_signal() {
                        let number = i32::try_from(info.ssi_signo).unwrap_or(0);
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

    fn start_control(&self) {
        let (asked_in, asked) = smol::channel::bounded::<Asked>(16);
        let serve = control::serve(self.executor.clone(), self.clients.clone(), asked_in);
        self.executor
            .spawn(async move {
                if let Err(error) = serve.await {
                    log::error!("{}: {error}", file::SOCKET);
                }
            })
            .detach();
        let (inputs, data) = (self.inputs.clone(), self.data.clone());
        self.executor
            .spawn(async move {
                while let Ok(Asked { client, request }) = asked.recv().await {
                    let (sql, web) = data.borrow().status();
                    let input = Input::Control { client, request, sql, web };
                    if inputs.send(input).await.is_err() {
                        return;
                    }
                }
            })
            .detach();
    }

    fn start_data(&self) -> io::Result<()> {
        let epoll = Async::new(self.data.borrow().epoll()?)?;
        let (data, facts, inputs) = (self.data.clone(), self.facts.clone(), self.inputs.clone());
        self.executor
            .spawn(async move {
                let mut known = DataPlane::default();
                loop {
                    let mut turned = data.borrow_mut().turn(clock::now());
                    for _ in 1..limits::PLANE_TURNS_MAX {
                        if !turned.has_more {
                            break;
                        }
                        turned = data.borrow_mut().turn(clock::now());
                    }
                    if turned.facts != known {
                        known = turned.facts;
                        facts.set(Some(known));
                        // A full queue wakes the node all the same.
                        let _full = inputs.try_send(Input::Wake);
                    }
                    if turned.has_more {
                        smol::future::yield_now().await;
                        continue;
                    }
                    let deadline = data.borrow().deadline();
                    let ready = async {
                        let _closing = epoll.readable().await;
                    };
                    smol::future::or(ready, sleep_until(deadline)).await;
                }
            })
            .detach();
        Ok(())
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

/// Makes an input of a datagram.
#[derive(Debug, Clone, Copy)]
enum Make {
    Vrrp(LinkId),
    Frame(DeviceId),
    Beacon(LinkId),
    Netlink,
    NetlinkLost,
}

impl Make {
    fn call(self, datagram: Vec<u8>) -> Input {
        match self {
            Self::Vrrp(link) => Input::Vrrp { link, datagram },
            Self::Frame(device) => Input::Frame { device, frame: datagram },
            Self::Beacon(link) => Input::Beacon { link, datagram },
            Self::Netlink => Input::Netlink { datagram },
            Self::NetlinkLost => Input::NetlinkLost,
        }
    }
}

fn open_link(config: &Config, me: HostId, link: LinkId) -> io::Result<LinkSockets> {
    let has = |is_meant: fn(&IpAddr) -> bool| {
        config.link(link).vip.iter().any(|vip| is_meant(&vip.address.address))
    };
    LinkSockets::open(Endpoints {
        device: config.link(link).device.clone(),
        own: config.host(me).address(link).address,
        peer: config.host(me.other()).address(link).address,
        beacon_port: config.peer.port,
        has_ipv4: has(IpAddr::is_ipv4),
        has_ipv6: has(IpAddr::is_ipv6),
    })
    .map_err(|error| io::Error::new(error.kind(), format!("{link} link: {error}")))
}

/// What the network refuses is seen by its silence; a person who looks closer finds the reason.
fn log_failure(what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        log::debug!("{what}: {error}");
    }
}
