//! A front in a thread: the loop of the daemon in small, with a document root of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tandem::limits;
use tandem::os::plane::{Plane, Turn};
use tandem::os::serve_web::{ServeWeb, Site};
use tandem::routes::Routes;
use tandem::time::Instant;
use tandem::web::place::Place;
use tandem::web::{Config, Status};
use tandem::wire::HostId;

pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    pub(crate) virtual_address: SocketAddr,
    /// Where it speaks FastCGI.
    pub(crate) port: SocketAddr,
    /// Of HTTPS, where there is a certificate: the plain one's address, the virtual one's.
    pub(crate) ssl: Option<[SocketAddr; 2]>,
    pub(crate) tree: Tree,
    config: Config,
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

enum Command {
    Routes(Routes),
    Reload(Box<Config>, Sender<Result<(), String>>),
    Status(Sender<Status>),
    IsDrained(Sender<bool>),
    Stop,
}

/// A temporary document root that is removed at the end.
pub(crate) struct Tree {
    pub(crate) base: PathBuf,
    pub(crate) root: PathBuf,
}

impl Tree {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tandem-web-{}-{number}", std::process::id());
        let base = std::env::temp_dir().join(name);
        let root = base.join("root");
        std::fs::create_dir_all(root.join("htmldir")).unwrap();
        std::fs::create_dir_all(root.join("phpdir")).unwrap();
        std::fs::create_dir_all(root.join("sp ace")).unwrap();
        std::fs::create_dir_all(root.join("bare")).unwrap();
        let range: String = (0..100).map(|n| format!("X{n:03}XXXXXX")).collect();
        let file = root.join("range.txt");
        std::fs::write(&file, range).unwrap();
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
        std::fs::write(root.join("empty.txt"), "").unwrap();
        std::fs::write(root.join("nosuffix"), "x").unwrap();
        std::fs::write(root.join("htmldir/index.html"), "<p>index</p>").unwrap();
        std::fs::write(root.join("phpdir/index.php"), "<?php echo 'in';").unwrap();
        std::fs::write(root.join("t.php"), "<?php echo 'hello';").unwrap();
        std::fs::write(root.join(".secret"), "x").unwrap();
        let large: Vec<u8> = (0..3_000_000u32).map(|n| n.to_be_bytes()[(n % 4) as usize]).collect();
        std::fs::write(root.join("large.bin"), large).unwrap();
        Self { base, root }
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.root.join(name), text).unwrap();
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.base);
    }
}

pub(crate) fn routes() -> Routes {
    Routes::unknown()
}

impl Front {
    pub(crate) fn start(php: [SocketAddr; 2]) -> Self {
        Self::start_with(php, |_| {})
    }

    pub(crate) fn start_with(php: [SocketAddr; 2], adjust: impl FnOnce(&mut Config)) -> Self {
        Self::start_asking(php, [None, None], adjust)
    }

    /// With php-fpm's pm.status_listen.
    pub(crate) fn start_asking(
        php: [SocketAddr; 2],
        php_status: [Option<SocketAddr>; 2],
        adjust: impl FnOnce(&mut Config),
    ) -> Self {
        let tree = Tree::new();
        let mut config = Config {
            root: tree.root.to_str().unwrap().to_owned(),
            body_max: tandem::units::ByteCount(2 << 20),
            queue_limit: Duration::from_secs(2),
            answer_limit: Duration::from_secs(5),
            keepalive: 8, // Off unless asked for, and more to go wrong with it.
            ..Config::default()
        };
        adjust(&mut config);
        let site = site(&config, php, php_status);
        let (commands, inbox) = channel();
        let (told, addresses) = channel();
        let started = config.clone();
        let is_ssl = config.ssl_certificate.is_some();
        let thread = std::thread::spawn(move || {
            let plane = Plane::new().unwrap();
            let serve = ServeWeb::new(&started, site, &plane).unwrap();
            told.send(serve.addresses()).unwrap();
            run(plane, serve, &inbox);
        });
        let addresses = addresses.recv().unwrap();
        Self {
            address: addresses[0],
            virtual_address: addresses[1],
            ssl: is_ssl.then(|| [addresses[2], addresses[3]]),
            port: *addresses.last().unwrap(),
            tree,
            config,
            commands,
            thread: Some(thread),
        }
    }

    /// Why a front with this configuration does not start.
    pub(crate) fn refusal(adjust: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        adjust(&mut config);
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let site = site(&config, [any; 2], [None, None]);
        ServeWeb::new(&config, site, &Plane::new().unwrap()).unwrap_err().to_string()
    }

    pub(crate) fn root(&self) -> &Path {
        &self.tree.root
    }

    pub(crate) fn set_routes(&self, routes: Routes) {
        self.commands.send(Command::Routes(routes)).unwrap();
        // The status comes after the routes were taken.
        self.status();
    }

    /// Takes the configuration that the front was started with, changed.
    pub(crate) fn reload(&self, adjust: impl FnOnce(&mut Config)) -> Result<(), String> {
        let mut config = self.config.clone();
        adjust(&mut config);
        let (sender, receiver) = channel();
        self.commands.send(Command::Reload(Box::new(config), sender)).unwrap();
        receiver.recv_timeout(Duration::from_secs(10)).expect("the front's loop runs")
    }

    pub(crate) fn status(&self) -> Status {
        let (sender, receiver) = channel();
        self.commands.send(Command::Status(sender)).unwrap();
        receiver.recv_timeout(Duration::from_secs(10)).expect("the front's loop runs")
    }

    pub(crate) fn is_drained(&self) -> bool {
        let (sender, receiver) = channel();
        self.commands.send(Command::IsDrained(sender)).unwrap();
        receiver.recv_timeout(Duration::from_secs(10)).expect("the front's loop runs")
    }

    /// Waits for a condition of the status.
    pub(crate) fn wait(&self, what: &str, condition: impl Fn(&Status) -> bool) {
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while !condition(&self.status()) {
            assert!(std::time::Instant::now() < end, "{what}: {:?}", self.status());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn site(config: &Config, php: [SocketAddr; 2], php_status: [Option<SocketAddr>; 2]) -> Site {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let fastcgi = config.fastcgi_listen.iter().cloned().chain([Place::Tcp(any)]);
    Site {
        me: HostId::First,
        listen: vec![(any, false), (any, true)],
        listen_ssl: vec![(any, false), (any, true)],
        fastcgi: fastcgi.collect(),
        inside: [Ipv4Addr::LOCALHOST.into(); 2],
        php,
        php_status,
        server_names: ["one".into(), "two".into()],
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

fn run(mut plane: Plane, mut serve: ServeWeb, inbox: &Receiver<Command>) {
    let start = std::time::Instant::now();
    let mut buffer = vec![0; limits::READ_BUFFER_BYTES];
    let mut ready = Vec::new();
    let mut has_more = false;
    loop {
        let now = || Instant::from_nanos(u64::try_from(start.elapsed().as_nanos()).unwrap());
        let until_deadline = serve.deadline().map_or(Duration::MAX, |at| at.since(now()));
        let wait = if has_more { Duration::ZERO } else { until_deadline };
        // Commands come without a descriptor: they are looked for every few milliseconds.
        let wait = wait.min(Duration::from_millis(5));
        let wait = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        let _ = poll(&mut [PollFd::new(plane.epoll(), PollFlags::IN)], Some(&wait));
        has_more = plane.poll(&mut ready).unwrap();
        // The plane is borrowed by the turn, as in the daemon.
        let mut turn = Turn { now: now(), plane: &plane, buffer: &mut buffer };
        for &event in &ready {
            serve.ready(&mut turn, event);
        }
        serve.expire(&mut turn);
        has_more |= serve.resume(&mut turn);
        while let Ok(command) = inbox.try_recv() {
            match command {
                Command::Routes(routes) => serve.set_routes(&mut turn, &routes),
                Command::Reload(config, reply) => {
                    reply.send(serve.reload(&mut turn, &config)).unwrap();
                }
                Command::Status(reply) => reply.send(serve.status()).unwrap(),
                Command::IsDrained(reply) => reply.send(serve.is_drained()).unwrap(),
                Command::Stop => return,
            }
        }
    }
}
