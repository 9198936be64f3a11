//! The front before real php-fpm 8.2, two pools on ephemeral ports.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use tandem::web::fastcgi::{self, Kind, Params};

use crate::client::{Client, get};
use crate::front::{Front, Tree};
use crate::group::Group;
use crate::records::{Caller, request};

/// One php-fpm.
pub(crate) struct Fpm {
    pub(crate) address: SocketAddr,
    /// pm.status_listen.
    pub(crate) status: SocketAddr,
    group: Group,
    _tree: Tree,
}

impl Fpm {
    pub(crate) fn start(workers: usize) -> Option<Self> {
        Self::start_with(workers, "")
    }

    /// With further lines in the pool's section.
    fn start_with(workers: usize, more: &str) -> Option<Self> {
        let tree = Tree::new();
        let free = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [address, status] = free.each_ref().map(|free| free.local_addr().unwrap());
        drop(free);
        let base = tree.base.display();
        let config = format!(
            "[global]\nerror_log = {base}/error.log\ndaemonize = no\n\
             [www]\nuser = root\ngroup = root\nlisten = {address}\npm = static\n\
             pm.max_children = {workers}\nping.path = /ping\n\
             pm.status_listen = {status}\npm.status_path = /status\ncatch_workers_output = no\n\
             {more}\n"
        );
        let path = tree.base.join("fpm.conf");
        std::fs::write(&path, config).unwrap();
        let words = ["php-fpm8.2", "-n", "-F", "-R", "-y", path.to_str().unwrap()];
        let group = Group::start(&words, address, Duration::from_secs(10))?;
        Some(Self { address, status, group, _tree: tree })
    }

    /// A number of the pool's status; whoever answers it is no worker.
    fn status(&self, name: &str) -> u32 {
        let mut params = Params::new();
        for (name, value) in [
            ("SCRIPT_NAME", "/status"),
            ("SCRIPT_FILENAME", "/status"),
            ("REQUEST_METHOD", "GET"),
            ("QUERY_STRING", ""),
        ] {
            assert!(params.add(name.as_bytes(), value.as_bytes()));
        }
        let mut bytes = params.finish();
        fastcgi::emit_end(&mut bytes, Kind::Stdin);
        let mut stream = TcpStream::connect(self.status).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let text = String::from_utf8_lossy(&answer);
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("{text}")).trim().parse().unwrap()
    }

    fn wait_idle(&self, limit: Duration) {
        let start = Instant::now();
        while self.status("active processes") > 0 {
            assert!(start.elapsed() < limit, "still busy after {:?}", start.elapsed());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.group.signal(signal);
    }
}

impl Fpm {
    /// Whether a worker is free to say pong, past any front.
    pub(crate) fn answers_ping(&self) -> bool {
        let params =
            [("REQUEST_METHOD", "GET"), ("SCRIPT_NAME", "/ping"), ("SCRIPT_FILENAME", "/ping")];
        let mut caller = Caller::connect(self.address);
        caller.ask(request(1, &params, b""), 1).text().ends_with("pong")
    }
}

fn pair() -> Option<(Front, [Fpm; 2])> {
    pair_with("")
}

fn pair_with(more: &str) -> Option<(Front, [Fpm; 2])> {
    let pools = [Fpm::start_with(6, more)?, Fpm::start_with(6, more)?];
    let front = front(&pools);
    Some((front, pools))
}

fn front(pools: &[Fpm; 2]) -> Front {
    let php = pools.each_ref().map(|pool| pool.address);
    let status = pools.each_ref().map(|pool| Some(pool.status));
    // The pool's status lowers it to five.
    let front = Front::start_asking(php, status, |config| config.php_requests_max = 50);
    front.tree.write(
        "info.php",
        "<?php $b = file_get_contents('php://input'); header('X-Length: ' . strlen($b));
         echo $_SERVER['REQUEST_METHOD'], ' ', $_SERVER['CONTENT_LENGTH'], ' ', md5($b), ' ',
              $_SERVER['PATH_INFO'] ?? '';",
    );
    front.tree.write("sleep.php", "<?php usleep(50000); echo 'slept';");
    front.tree.write("big.php", "<?php for ($i = 0; $i < 500; $i++) echo str_repeat('x', 10000);");
    front.tree.write("die.php", "<?php shell_exec('kill -9 ' . getmypid());");
    front
}

#[test]
fn php_answers() {
    let Some((front, _pools)) = pair() else { return };
    let mut client = Client::connect(front.address);
    let answer = client.get("/t.php");
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    assert!(answer.header("content-length") == Some("5"), "{}", answer.head);
    assert_eq!(client.get("/info.php/a/b").text(), "GET  d41d8cd98f00b204e9800998ecf8427e /a/b");
    client.request("HEAD", "/t.php", "");
    assert_eq!(client.answer_to("HEAD").status, 200);
    a_million_bytes_arrive(&mut client);
    assert_eq!(client.get("/big.php").body.len(), 5_000_000);
    assert_eq!(client.get("/phpdir/").text(), "in");
    front.wait("both answer pings", |status| status.peers.iter().all(|peer| peer.is_up));
}

/// G02, with a length and in chunks.
pub(crate) fn a_million_bytes_arrive(client: &mut Client) {
    // The MD5 of a million times "a".
    let body = vec![b'a'; 1_000_000];
    client.request("POST", "/info.php", "Content-Length: 1000000\r\n");
    client.send(&body);
    let expected = "POST 1000000 7707d6ae4e027c70eea2a935c2296f21 ";
    assert_eq!(client.answer().text(), expected);
    client.request("POST", "/info.php", "Transfer-Encoding: chunked\r\n");
    client.send_chunked(&body, 99_999);
    assert_eq!(client.answer().text(), expected);
}

/// GETs by four clients at once until told to stop: how many, how many failed, the slowest.
fn load(
    address: SocketAddr,
    stop: &Arc<AtomicBool>,
) -> Vec<std::thread::JoinHandle<(u32, u32, Duration)>> {
    (0..4)
        .map(|_| {
            let stop = Arc::clone(stop);
            std::thread::spawn(move || {
                let (mut count, mut failed, mut slowest) = (0, 0, Duration::ZERO);
                while !stop.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    failed += u32::from(get(address, "/sleep.php").status != 200);
                    count += 1;
                    slowest = slowest.max(start.elapsed());
                }
                (count, failed, slowest)
            })
        })
        .collect()
}

pub(crate) fn under_load(address: SocketAddr, what: &str, fault: impl FnOnce()) -> Duration {
    let stop = Arc::new(AtomicBool::new(false));
    let clients = load(address, &stop);
    std::thread::sleep(Duration::from_millis(500));
    fault();
    std::thread::sleep(Duration::from_millis(2000));
    stop.store(true, Ordering::Relaxed);
    let (mut count, mut failed, mut slowest) = (0, 0, Duration::ZERO);
    for client in clients {
        let (clients_count, clients_failed, clients_slowest) = client.join().unwrap();
        count += clients_count;
        failed += clients_failed;
        slowest = slowest.max(clients_slowest);
    }
    println!("{what}: {count} GETs, {failed} failed, slowest {slowest:?}");
    assert_eq!(failed, 0, "{what}");
    slowest
}

#[test]
fn a_killed_pool_fails_no_get() {
    let Some((front, pools)) = pair() else { return };
    let slowest = under_load(front.address, "SIGKILL", || pools[0].signal(Signal::SIGKILL));
    assert!(slowest < Duration::from_millis(1000), "{slowest:?}");
    assert!(!front.status().peers[0].is_up);
}

#[test]
fn a_stopped_pool_costs_less_than_a_second() {
    let Some((front, pools)) = pair() else { return };
    let slowest = under_load(front.address, "SIGSTOP", || pools[1].signal(Signal::SIGSTOP));
    assert!(slowest < Duration::from_millis(1000), "{slowest:?}");
    assert!(!front.status().peers[1].is_up);
    pools[1].signal(Signal::SIGCONT);
    front.wait("it is back", |status| status.peers[1].is_up);
}

#[test]
fn a_pool_whose_workers_are_all_busy_stays_in() {
    let Some((front, pools)) = pair() else { return };
    front.wait("both are up", |status| status.peers.iter().all(|peer| peer.is_up));
    // All six workers of the first pool, five by requests and one past the front.
    // A connection that says nothing occupies its worker for five seconds.
    let _past = TcpStream::connect(pools[0].address).unwrap();
    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(front.address)).collect();
    front.tree.write("long.php", "<?php usleep(2500000); echo 'long';");
    for client in &mut clients {
        client.request("GET", "/long.php", "");
    }
    front.wait("the cap holds", |status| status.in_flight == 10 && status.queued == 0);
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(100));
        assert!(front.status().peers.iter().all(|peer| peer.is_up), "{:?}", front.status());
    }
    for client in &mut clients {
        assert_eq!(client.answer().text(), "long");
    }
}

#[test]
fn a_restarted_pool_fails_no_get() {
    let Some((front, pools)) = pair() else { return };
    under_load(front.address, "SIGTERM", || pools[0].signal(Signal::SIGTERM));
}

#[test]
fn a_page_that_kills_its_worker_takes_out_nobody() {
    let Some((front, _pools)) = pair() else { return };
    let status = get(front.address, "/die.php").status;
    assert!(status == 502 || status == 500, "{status}");
    for _ in 0..30 {
        assert_eq!(get(front.address, "/t.php").status, 200);
    }
}

/// Many short GETs by four clients, each on one connection: how many failed, the slowest.
fn short_gets(front: &Front, seconds: u64) -> (usize, usize, Duration) {
    let address = front.address;
    let end = Instant::now() + Duration::from_secs(seconds);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                let (mut count, mut failed, mut slowest) = (0, 0, Duration::ZERO);
                while Instant::now() < end {
                    let start = Instant::now();
                    failed += usize::from(client.get("/t.php").text() != "hello");
                    count += 1;
                    slowest = slowest.max(start.elapsed());
                }
                (count, failed, slowest)
            })
        })
        .collect();
    let all = clients.into_iter().map(|client| client.join().unwrap());
    all.fold((0, 0, Duration::ZERO), |(count, failed, slowest), (more, lost, slow)| {
        (count + more, failed + lost, slowest.max(slow))
    })
}

#[test]
fn workers_that_end_after_five_requests_fail_nobody() {
    let Some((front, _pools)) = pair_with("pm.max_requests = 5") else { return };
    let (count, failed, slowest) = short_gets(&front, 2);
    println!("pm.max_requests = 5: {count} GETs, {failed} failed, slowest {slowest:?}");
    assert!(count > 100 && failed == 0, "{failed} of {count}");
    assert!(front.status().peers.iter().all(|peer| peer.is_up), "{:?}", front.status());
}

#[test]
fn a_reload_is_not_held_up_by_kept_connections() {
    let Some((front, pools)) = pair() else { return };
    let mut slowest = Duration::ZERO;
    std::thread::scope(|scope| {
        let load = scope.spawn(|| short_gets(&front, 3));
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(700));
            kill(pools[0].group.leader(), Signal::SIGUSR2).unwrap();
        }
        let (count, failed, slow) = load.join().unwrap();
        println!("two reloads: {count} GETs, {failed} failed, slowest {slow:?}");
        assert!(count > 100 && failed == 0, "{failed} of {count}");
        slowest = slow;
    });
    assert!(slowest < Duration::from_millis(1500), "{slowest:?}");
}

#[test]
fn a_page_that_ends_early_for_its_client_holds_up_no_other() {
    // facts/web.md, fact 9
    let Some((front, _pools)) = pair() else { return };
    front.tree.write("early.php", "<?php echo 'early'; fastcgi_finish_request(); usleep(1500000);");
    let mut client = Client::connect(front.address);
    for _ in 0..4 {
        assert_eq!(client.get("/early.php").text(), "early");
    }
    for _ in 0..4 {
        let start = Instant::now();
        assert_eq!(client.get("/t.php").text(), "hello");
        println!("behind an early end: {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_millis(700), "{:?}", start.elapsed());
    }
}

#[test]
fn a_client_that_leaves_frees_its_php_worker() {
    let Some((front, pools)) = pair() else { return };
    front.tree.write(
        "drip.php",
        "<?php for ($i = 0; $i < 1000; $i++) { echo 'x'; flush(); usleep(10000); }",
    );
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(front.address)).collect();
    for client in &mut clients {
        client.request("GET", "/drip.php", "");
    }
    front.wait("they are at php", |status| status.in_flight == 4);
    let busy = || pools.iter().map(|pool| pool.status("active processes")).sum::<u32>();
    while busy() < 4 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let start = Instant::now();
    drop(clients);
    front.wait("the front is rid of them", |status| status.in_flight == 0);
    let by_front = start.elapsed();
    pools.iter().for_each(|pool| pool.wait_idle(Duration::from_secs(1)));
    println!("free after {by_front:?} here, {:?} in the pools", start.elapsed());
    assert!(by_front < Duration::from_millis(250), "{by_front:?}");
}

/// php-fpm leaves the end of STDIN unread while it runs a script that has no body: on a connection
/// that was kept it looks as if the request had not begun.
#[test]
fn a_slow_page_on_a_kept_connection_runs_once() {
    let Some((front, _pools)) = pair() else { return };
    let marks = front.root().with_file_name("marks");
    let page = format!(
        "<?php file_put_contents('{}', \"x\\n\", FILE_APPEND); usleep(400000); echo 'slow';",
        marks.display()
    );
    front.tree.write("slow.php", &page);
    let mut client = Client::connect(front.address);
    for round in 1..=4 {
        for _ in 0..2 {
            assert_eq!(client.get("/t.php").status, 200);
        }
        assert_eq!(client.get("/slow.php").text(), "slow");
        let runs = std::fs::read_to_string(&marks).unwrap().lines().count();
        assert_eq!(runs, round, "it was asked {round} times");
    }
}

#[test]
fn workers_that_end_after_five_requests_fail_nothing() {
    let Some((front, pools)) = pair_with("pm.max_requests = 5") else { return };
    under_load(front.address, "pm.max_requests=5", || {});
    let count: u64 = front.status().peers.iter().map(|peer| peer.requests).sum();
    let started: u32 = pools.iter().map(|pool| pool.status("accepted conn")).sum();
    println!("{count} requests, {started} connections with the pings");
    assert!(count > 60, "each worker ended once: {count}");
    assert!(front.status().peers.iter().all(|peer| peer.is_up));
}

#[test]
fn what_a_script_does_after_its_answer_delays_nobody() {
    let Some((front, pools)) = pair() else { return };
    front.tree.write(
        "after.php",
        "<?php echo 'done'; fastcgi_finish_request(); usleep(1500000); touch(__DIR__ . '/after');",
    );
    let mut client = Client::connect(front.address);
    client.get("/t.php");
    let mut slowest = Duration::ZERO;
    // Fewer than a pool has workers: the front cannot know that one is busy behind its answer.
    for _ in 0..4 {
        let start = Instant::now();
        let answer = client.get("/after.php");
        assert_eq!((answer.status, answer.text().as_str()), (200, "done"));
        assert!(answer.is_whole && answer.header("connection").is_none(), "{}", answer.head);
        assert_eq!(client.get("/t.php").text(), "hello");
        slowest = slowest.max(start.elapsed());
    }
    println!("the slowest pair on one connection: {slowest:?}");
    assert!(slowest < Duration::from_millis(750), "{slowest:?}");
    pools.iter().for_each(|pool| pool.wait_idle(Duration::from_secs(4)));
    assert!(front.root().join("after").exists(), "the rest of the script ran");
}

#[test]
fn of_two_fronts_on_the_same_pools_neither_starves() {
    let Some((one, pools)) = pair() else { return };
    let other = front(&pools);
    let fronts = [&one, &other];
    let stop = Arc::new(AtomicBool::new(false));
    // Each could fill both pools alone: 5 of 6 workers by the cap, of two pools.
    let clients = fronts.map(|front| (0..5).flat_map(|_| load(front.address, &stop)).collect());
    std::thread::sleep(Duration::from_secs(3));
    stop.store(true, Ordering::Relaxed);
    let counts = clients.map(|clients: Vec<std::thread::JoinHandle<_>>| {
        let mut counts = (0, 0, Duration::ZERO);
        for client in clients {
            let (count, failed, slowest) = client.join().unwrap();
            counts = (counts.0 + count, counts.1 + failed, counts.2.max(slowest));
        }
        counts
    });
    println!("requests, failed, slowest by front: {counts:?}");
    let [(first, ..), (second, ..)] = counts;
    assert!(counts.iter().all(|it| it.1 == 0), "{counts:?}");
    assert!(first.min(second) * 3 > first.max(second), "{counts:?}");
    // Twelve workers and 50 ms a request.
    assert!(first + second > 200, "{counts:?}");
    assert!(fronts.iter().all(|it| it.status().peers.iter().all(|peer| peer.is_up)));
}

/// By hand, for wrk:
/// `BENCH_SECONDS=60 cargo test --profile quick --test web bench -- --ignored --nocapture`
#[test]
#[ignore = "a server for measurements by hand"]
fn bench() {
    let Some((front, _pools)) = pair() else { return };
    front.tree.write("1k.txt", &"x".repeat(1024));
    println!("http://{}/1k.txt /large.bin /t.php", front.address);
    let seconds = std::env::var("BENCH_SECONDS").ok().and_then(|text| text.parse().ok());
    std::thread::sleep(Duration::from_secs(seconds.unwrap_or(10)));
    println!("{:?}", front.status());
}

#[test]
fn php_is_told_who_logged_in() {
    let Some((_, pools)) = pair() else { return };
    let files = Tree::new();
    files.write("users", crate::sites::USERS);
    let users = files.root.join("users");
    let php = pools.each_ref().map(|pool| pool.address);
    let front = Front::start_with(php, |config| {
        let text =
            format!("prefix = \"/\"\nauth_basic = \"here\"\nauth_basic_user_file = {users:?}\n");
        config.location = vec![toml::from_str(&text).unwrap()];
    });
    front.tree.write("who.php", "<?php echo $_SERVER['AUTH_TYPE'], ' ', $_SERVER['REMOTE_USER'];");
    let mut client = Client::connect(front.address);
    client.request("GET", "/who.php", "Authorization: Basic YW5uOnNlY3JldA==\r\n");
    assert_eq!(client.answer().text(), "Basic ann");
}
