//! The servers that are compared, and what answers FastCGI behind them.
//!
//! In: a name, the run's folder, the FastCGI port. Out: a running process and its address. nginx
//! has one worker, haproxy one thread, tandem its daemon as it is shipped, with no database and no
//! other host. None writes an access log. Must not: run outside the namespaces of `enter`.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};

use crate::Outcome;

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// The same in TLS; haproxy has none here.
    pub(crate) ssl_address: SocketAddr,
    child: Running,
}

/// A process that is ended with its handle.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap_or(i32::MAX));
        let _gone = kill(pid, Signal::SIGTERM);
        let _gone = self.0.wait();
    }
}

/// What tandem needs to start: its two links, and folders that are nobody else's.
const PREPARE: &str = "
set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/php /var/lib/tandem
mount -t tmpfs tmpfs /var/lib/tandem
ip link set lo up
ip link add eth0 type veth peer name cable0
ip link add eth1 type veth peer name cable1
ip addr add 10.96.153.110/24 dev eth0
ip addr add 192.168.3.100/24 dev eth1
for link in eth0 cable0 eth1 cable1; do ip link set $link up; done
";

pub(crate) fn prepare(directory: &Path) -> Outcome<()> {
    let done = Command::new("bash")
        .args(["-c", PREPARE])
        .current_dir(directory)
        .status()
        .map_err(|error| format!("bash: {error}"))?;
    if done.success() { Ok(()) } else { Err("the namespaces cannot be prepared".into()) }
}

impl Server {
    pub(crate) fn start(
        name: &'static str,
        directory: &Path,
        php_port: u16,
        is_kept: bool,
    ) -> Outcome<Self> {
        let file = directory.join(name);
        let file_text = file.to_string_lossy().into_owned();
        let root = directory.join("root");
        let root = root.to_string_lossy();
        let binary = std::env::var("TANDEM_BIN").map_err(|_| "TANDEM_BIN names no binary")?;
        let pair = ["certificate.pem", "key.pem"].map(|name| directory.join(name));
        let pair = pair.each_ref().map(|path| path.to_string_lossy());
        let (config, address, words): (String, [&str; 2], Vec<&str>) = match name {
            "nginx" => (
                nginx(&root, php_port, is_kept, &pair),
                ["127.0.0.1:8001", "127.0.0.1:8443"],
                vec!["nginx", "-c", &file_text],
            ),
            "haproxy" => (
                haproxy(&root, php_port, is_kept),
                ["127.0.0.1:8002"; 2],
                vec!["haproxy", "-f", &file_text],
            ),
            "haptcp" => {
                (haproxy_tcp(php_port), ["127.0.0.1:8003"; 2], vec!["haproxy", "-f", &file_text])
            }
            name => {
                let address = if name == "port" { PORT } else { "10.96.153.110:80" };
                let words = vec![&*binary, "run", "--host", "server1", "--config", &file_text];
                (tandem(&root, php_port, is_kept, &pair), [address, "10.96.153.110:443"], words)
            }
        };
        std::fs::write(&file, config).map_err(|error| format!("{file_text}: {error}"))?;
        let child = spawn("0", &words, &directory.join(format!("{name}.log")))?;
        let [address, ssl_address] = address.map(str::parse);
        let address = address.map_err(|_| "an address")?;
        let ssl_address = ssl_address.map_err(|_| "an address")?;
        wait_for(address).map_err(|why| {
            let log = directory.join(format!("{name}.log"));
            format!("{name}: {why}\n{}", std::fs::read_to_string(log).unwrap_or_default())
        })?;
        Ok(Self { name, address, ssl_address, child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.0.id()
    }

    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.name, "tandem" | "port")
    }
}

fn spawn(cpu: &str, words: &[&str], log: &Path) -> Outcome<Running> {
    let log = std::fs::File::create(log).map_err(|error| error.to_string())?;
    let output = log.try_clone().map_err(|error| error.to_string())?;
    // taskset becomes the program, so that the child's pid is the program's.
    Command::new("taskset")
        .args(["-c", cpu])
        .args(words)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(log)
        .spawn()
        .map(Running)
        .map_err(|error| format!("{words:?}: {error}"))
}

fn wait_for(address: SocketAddr) -> Outcome<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).is_err() {
        if Instant::now() > end {
            return Err(format!("nobody listens on {address}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn nginx(
    root: &str,
    php_port: u16,
    is_kept: bool,
    [certificate, key]: &[Cow<'_, str>; 2],
) -> String {
    let (keepalive, keep) = if is_kept { ("keepalive 64;", "on") } else { ("", "off") };
    format!(
        "daemon off; worker_processes 1; user root; pid /run/nginx.pid; error_log stderr crit;\n\
         events {{ worker_connections 2048; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000;\n\
         upstream php {{ server 127.0.0.1:{php_port} max_fails=0; {keepalive} }}\n\
         server {{ listen 127.0.0.1:8001 backlog=1024; root {root};\n\
         listen 127.0.0.1:8443 ssl backlog=1024; ssl_protocols TLSv1.2 TLSv1.3;\n\
         ssl_certificate {certificate}; ssl_certificate_key {key};\n\
         location ~ \\.php$ {{ include /etc/nginx/fastcgi_params;\n\
         fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;\n\
         fastcgi_keep_conn {keep}; fastcgi_pass php; }} }} }}\n"
    )
}

fn haproxy(root: &str, php_port: u16, is_kept: bool) -> String {
    let (reuse, keep) = if is_kept { ("always", "") } else { ("never", "no ") };
    format!(
        "global\n nbthread 1\n maxconn 4000\n\
         defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
         frontend f\n bind 127.0.0.1:8002\n default_backend b\n\
         backend b\n use-fcgi-app php\n http-reuse {reuse}\n\
         server s 127.0.0.1:{php_port} proto fcgi maxconn 15\n\
         fcgi-app php\n docroot {root}\n {keep}option keep-conn\n"
    )
}

fn haproxy_tcp(php_port: u16) -> String {
    format!(
        "global\n nbthread 1\n maxconn 4000\n\
         defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
         listen f\n bind 127.0.0.1:8003\n server s 127.0.0.1:{php_port}\n"
    )
}

/// Where tandem speaks FastCGI.
const PORT: &str = "127.0.0.1:8004";

fn tandem(
    root: &str,
    php_port: u16,
    is_kept: bool,
    [certificate, key]: &[Cow<'_, str>; 2],
) -> String {
    let keepalive = if is_kept { 15 } else { 0 };
    let more = format!(
        "php_port = {php_port}\nphp_requests_max = 15\nkeepalive = {keepalive}\n\
         fastcgi_listen = [\"{PORT}\"]\n\
         ssl_certificate = {certificate:?}\nssl_certificate_key = {key:?}\n"
    );
    include_str!("../../src/example.toml")
        .replace("root = \"/var/www/html\"", &format!("root = \"{root}\""))
        .replace("php_port = 9000", &more)
}

/// php-fpm's first port, and from one pool to the next. A server that keeps connections holds
/// workers while it is not asked, so that each of those has a pool of its own.
pub(crate) const PHP_PORT: u16 = 9000;
pub(crate) const POOL_STEP: u16 = 10;

/// Three pools of sixteen workers.
pub(crate) fn php_fpm(directory: &Path) -> Outcome<Running> {
    let file = directory.join("fpm.conf");
    let pool = |number: u16| {
        format!(
            "[pool{number}]\nuser = root\ngroup = root\nlisten = 127.0.0.1:{}\n\
             listen.backlog = 1024\npm = static\npm.max_children = 16\nping.path = /ping\n",
            PHP_PORT + number * POOL_STEP
        )
    };
    let pools: String = (0..3).map(pool).collect();
    let text = format!("[global]\ndaemonize = no\nerror_log = /dev/null\n{pools}");
    std::fs::write(&file, text).map_err(|error| error.to_string())?;
    let file = file.to_string_lossy();
    let words = ["php-fpm8.2", "-F", "-R", "-d", "opcache.enable=1", "-y", &file];
    let running = spawn("1", &words, &directory.join("fpm.log"))?;
    wait_for(([127, 0, 0, 1], PHP_PORT).into()).map(|()| running)
}

/// This program again, as a FastCGI responder on port 9001 that does nothing.
pub(crate) fn responder() -> Outcome<Running> {
    let me = std::env::current_exe().map_err(|error| error.to_string())?;
    let me = me.to_string_lossy();
    let running = spawn("1", &[&me, "respond"], Path::new("/dev/null"))?;
    wait_for(([127, 0, 0, 1], 9001).into()).map(|()| running)
}

/// Answers 64 bytes to every request, of as many connections as there are.
pub(crate) fn respond() -> Outcome<()> {
    let listener = TcpListener::bind(("127.0.0.1", 9001)).map_err(|error| error.to_string())?;
    listener.set_nonblocking(true).map_err(|error| error.to_string())?;
    let text = format!("Content-Type: text/plain\r\n\r\n{}", "x".repeat(64));
    let length = u8::try_from(text.len()).map_err(|_| "a short text")?;
    let end = [1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let answer = [&[1, 6, 0, 1, 0, length, 0, 0], text.as_bytes(), &end].concat();
    let mut talks: Vec<Talk> = Vec::new();
    loop {
        let mut waited = vec![PollFd::new(&listener, PollFlags::IN)];
        waited.extend(talks.iter().map(|talk| PollFd::new(&talk.stream, PollFlags::IN)));
        poll(&mut waited, None).map_err(|error| format!("poll: {error}"))?;
        let ready: Vec<bool> = waited.iter().map(|one| !one.revents().is_empty()).collect();
        let mut is_ready = ready.iter().skip(1);
        talks.retain_mut(|talk| !is_ready.next().is_some_and(|&it| it) || talk.go_on(&answer));
        while let Ok((stream, _)) = listener.accept() {
            talks.push(Talk { stream, seen: Vec::new(), keeps: None });
        }
    }
}

/// A connection of the responder.
struct Talk {
    stream: TcpStream,
    seen: Vec<u8>,
    /// BEGIN_REQUEST's flag, once it is here.
    keeps: Option<bool>,
}

impl Talk {
    /// Reads, and answers a request that is whole. False: the connection is over.
    fn go_on(&mut self, answer: &[u8]) -> bool {
        let mut bytes = [0; 8192];
        match self.stream.read(&mut bytes) {
            Ok(count) if count > 0 => self.seen.extend_from_slice(&bytes[..count]),
            Ok(_) | Err(_) => return false,
        }
        self.keeps = self.keeps.or_else(|| Some(self.seen.get(10)? & 1 == 1));
        // The empty STDIN record ends a request: type 5, length 0.
        let is_whole = self.seen.len() >= 8
            && matches!(self.seen[self.seen.len() - 8..], [1, 5, _, _, 0, 0, 0, _]);
        if !is_whole {
            return true;
        }
        // haproxy numbers the requests of a connection; the id is in the header of both records.
        let mut answer = answer.to_vec();
        for at in [2, answer.len() - 14] {
            answer[at..at + 2].copy_from_slice(&self.seen[2..4]);
        }
        self.seen.clear();
        self.stream.write_all(&answer).is_ok() && self.keeps.take() == Some(true)
    }
}
