//! Benchmark: the web front beside Debian's nginx and haproxy, interleaved in one run.
//!
//! In: --seconds N, --rounds N, --case NAME, --connections N, --json FILE; TANDEM_BIN. Out: a table
//! of requests a second, p99 and CPU seconds per million requests, best of the rounds; the same as
//! JSON. Servers are pinned to CPU 0; wrk or our own load, php-fpm and the null responder to CPU 1.
//! All of it runs in network and mount namespaces of its own, so ports and /run are its own too.
//!
//! The cases fastcgi_port and fastcgi_port_close ask the FastCGI port, on kept connections and on
//! one a request. haproxy in TCP mode has no port of that kind to compare: what it keeps is one
//! connection from end to end, which holds a worker of php-fpm as long as it stands.
//! Read first: facts/web.md 5 (what the figures of nginx and haproxy were there).
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use serde_json::{Value, json};

mod idle;
mod load;
mod measure;
mod servers;

use measure::Figures;
use servers::Server;

pub(crate) type Outcome<T> = Result<T, String>;

const USAGE: &str = "usage: scripts/bench web [--seconds N] [--rounds N] [--case NAME] \
                     [--connections N] [--json FILE]";

/// A case: its name, what is asked for, the port of what answers FastCGI, and who runs it.
struct Case {
    name: &'static str,
    path: &'static str,
    php_port: u16,
    /// Whether connections to what answers FastCGI are kept, or one is made for each request.
    is_kept: bool,
    servers: &'static [&'static str],
}

impl Case {
    /// Cases of that name are in TLS.
    fn is_tls(&self) -> bool {
        self.name.starts_with("tls_")
    }

    /// A handshake for every request.
    fn is_closing(&self) -> bool {
        self.name == "tls_connect"
    }
}

/// A file in plain HTTP or TLS.
const fn file(name: &'static str, path: &'static str) -> Case {
    Case { name, path, php_port: 9000, is_kept: false, servers: &["nginx", "tandem"] }
}

/// PHP behind the front.
const fn php(name: &'static str, path: &'static str, php_port: u16, is_kept: bool) -> Case {
    Case { name, path, php_port, is_kept, servers: &["nginx", "haproxy", "tandem"] }
}

/// The FastCGI port.
const fn port(name: &'static str, path: &'static str, is_kept: bool) -> Case {
    Case { name, path, php_port: 9001, is_kept, servers: &["haptcp", "port"] }
}

const CASES: [Case; 11] = [
    file("tls_1k", "/1k.bin"),
    file("tls_1m", "/1m.bin"),
    file("tls_connect", "/1k.bin"),
    file("static_1k", "/1k.bin"),
    file("static_1m", "/1m.bin"),
    php("null_kept", "/null.php", 9001, true),
    php("null_close", "/null.php", 9001, false),
    php("php_hello", "/hello.php", 9000, false),
    php("hello_kept", "/hello.php", 9000, true),
    port("fastcgi_port", load::KEPT, true),
    port("fastcgi_port_close", load::FRESH, false),
];

struct Options {
    seconds: u64,
    rounds: usize,
    case: Option<String>,
    connections: Vec<usize>,
    file: Option<String>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.first().map(String::as_str) {
        Some("respond") => servers::respond(),
        Some("load") => load::load(words.get(1..).unwrap_or_default()),
        Some("inside") => bench(words.get(1..).unwrap_or_default()),
        Some(_) | None => enter(&words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench web: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Runs this program again in namespaces of its own; they end with it, and all that runs in them.
fn enter(words: &[String]) -> Outcome<()> {
    parse(words)?;
    let me = std::env::current_exe().map_err(|error| error.to_string())?;
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(me)
        .arg("inside")
        .args(words)
        .status()
        .map_err(|error| format!("unshare: {error}"))?;
    if status.success() { Ok(()) } else { Err("the run failed".into()) }
}

fn parse(words: &[String]) -> Outcome<Options> {
    let mut options =
        Options { seconds: 4, rounds: 3, case: None, connections: vec![16, 64, 256], file: None };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value = words.next().ok_or(USAGE)?;
        let number = || value.parse::<u64>().map_err(|_| USAGE.to_owned());
        match word.as_str() {
            "--seconds" => options.seconds = number()?.max(1),
            "--rounds" => options.rounds = usize::try_from(number()?).unwrap_or(1).max(1),
            "--case" => options.case = Some(value.clone()),
            "--connections" => {
                options.connections = vec![usize::try_from(number()?).unwrap_or(16)];
            }
            "--json" => options.file = Some(value.clone()),
            _ => return Err(USAGE.into()),
        }
    }
    Ok(options)
}

fn bench(words: &[String]) -> Outcome<()> {
    let options = parse(words)?;
    let directory = std::env::temp_dir().join(format!("tandem-bench-{}", std::process::id()));
    let tree = Tree::new(directory)?;
    servers::prepare(&tree.0)?;
    let _fpm = servers::php_fpm(&tree.0)?;
    let _responder = servers::responder()?;
    println!(
        "{:<18} {:>5} {:<8} {:>9} {:>9} {:>13} {:>6}",
        "case", "conns", "server", "req/s", "p99 ms", "CPU s/million", "ratio"
    );
    let mut results = Vec::new();
    for case in CASES.iter().filter(|case| options.case.as_deref().is_none_or(|it| it == case.name))
    {
        let servers: Vec<Server> = case
            .servers
            .iter()
            .zip(0u16..)
            .map(|(name, place)| {
                let is_pooled = case.is_kept && case.php_port == servers::PHP_PORT;
                let step = if is_pooled { place * servers::POOL_STEP } else { 0 };
                Server::start(name, &tree.0, case.php_port + step, case.is_kept)
            })
            .collect::<Outcome<_>>()?;
        for &connections in &options.connections {
            results.extend(compare(case, &servers, connections, &options)?);
        }
    }
    if options.case.as_deref().is_none_or(|it| it == "idle") {
        for name in ["nginx", "tandem"] {
            let server = Server::start(name, &tree.0, 9000, false)?;
            let bytes = idle::bytes_a_client(&server)?;
            println!("idle               {name:<8} {bytes:>9.0} bytes a client");
            results.push(json!({ "case": "idle", "server": name, "bytes_a_client": bytes }));
        }
    }
    if let Some(file) = &options.file {
        let all = json!({ "name": "web", "seconds": options.seconds, "rounds": options.rounds,
                          "results": results });
        std::fs::write(file, format!("{all:#}\n")).map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(())
}

/// What the rounds of one server came to.
#[derive(Default)]
struct Rounds {
    best: Option<Figures>,
    /// Of those in which a request failed: none is measured.
    failed: usize,
    why: String,
}

/// One case at one number of connections: the servers take turns, the best round of each counts. A
/// round of a peer in which requests failed is told; one of ours is an error.
fn compare(
    case: &Case,
    servers: &[Server],
    connections: usize,
    options: &Options,
) -> Outcome<Vec<Value>> {
    let mut all: Vec<Rounds> = servers.iter().map(|_| Rounds::default()).collect();
    // The first one only warms up.
    for round in 0..=options.rounds {
        let seconds = if round == 0 { 1 } else { options.seconds };
        for (server, rounds) in servers.iter().zip(&mut all) {
            match measure::run(server, case, connections, Duration::from_secs(seconds)) {
                Ok(_) if round == 0 => {}
                Ok(figures) => {
                    if rounds.best.as_ref().is_none_or(|best| figures.cpu < best.cpu) {
                        rounds.best = Some(figures);
                    }
                }
                Err(why) if server.is_ours() => return Err(why),
                Err(why) => {
                    rounds.failed += 1;
                    rounds.why = why;
                }
            }
        }
    }
    let peers = servers.iter().zip(&all).filter(|(server, _)| !server.is_ours());
    let costs = peers.filter_map(|(_, rounds)| rounds.best.as_ref()).map(|best| best.cpu);
    let reference = costs.fold(f64::INFINITY, f64::min);
    let rows = servers.iter().zip(&all);
    Ok(rows.map(|(server, rounds)| row(case, server, connections, rounds, reference)).collect())
}

fn row(case: &Case, server: &Server, connections: usize, rounds: &Rounds, reference: f64) -> Value {
    let head = format!("{:<18} {connections:>5} {:<8}", case.name, server.name);
    if rounds.failed > 0 {
        let why = rounds.why.lines().find(|line| line.contains("errors")).unwrap_or(&rounds.why);
        println!("{head} requests failed in {} runs: {}", rounds.failed, why.trim());
    }
    let mut row = json!({ "case": case.name, "connections": connections, "server": server.name,
                          "failed_runs": rounds.failed });
    if let Some(figures) = &rounds.best {
        let ratio = figures.cpu / reference;
        println!(
            "{head} {:>9.0} {:>9.2} {:>13.1} {ratio:>6.2}",
            figures.rate, figures.p99_ms, figures.cpu
        );
        row["requests_per_second"] = json!(figures.rate);
        row["p99_ms"] = json!(figures.p99_ms);
        row["cpu_seconds_per_million"] = json!(figures.cpu);
        row["ratio_to_best_peer"] = json!(ratio);
    }
    row
}

/// The run's folder, removed at the end.
struct Tree(PathBuf);

impl Tree {
    fn new(path: PathBuf) -> Outcome<Self> {
        let tree = Self(path);
        let write = |name: &str, bytes: &[u8]| {
            let path = tree.0.join("root").join(name);
            std::fs::create_dir_all(path.parent().unwrap_or_else(|| Path::new("/")))?;
            std::fs::write(path, bytes)
        };
        write("1k.bin", &[b'x'; 1024])
            .and_then(|()| write("1m.bin", &vec![b'x'; 1 << 20]))
            .and_then(|()| write("hello.php", b"<?php echo 'hello';"))
            .and_then(|()| write("null.php", b"<?php"))
            .and_then(|()| certify(&tree.0))
            .map_err(|error| format!("{}: {error}", tree.0.display()))?;
        Ok(tree)
    }
}

/// A certificate with a P-256 key, for all servers.
fn certify(directory: &Path) -> std::io::Result<()> {
    let key = rcgen::KeyPair::generate().map_err(std::io::Error::other)?;
    let params = rcgen::CertificateParams::new(["bench.test".to_owned()]);
    let params = params.map_err(std::io::Error::other)?;
    let certificate = params.self_signed(&key).map_err(std::io::Error::other)?;
    std::fs::write(directory.join("certificate.pem"), certificate.pem())?;
    std::fs::write(directory.join("key.pem"), key.serialize_pem())?;
    std::fs::set_permissions(directory.join("key.pem"), std::fs::Permissions::from_mode(0o600))
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}
