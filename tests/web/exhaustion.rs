//! Clients that take and do not give: slow senders, readers that stop, more than there are
//! descriptors (in a process of its own, since the limit is the process's).

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use tandem::limits;

use crate::backend::{Backend, Mode};
use crate::client::{Client, get};
use crate::front::Front;

/// The process whose descriptors run out; its parent is the test below.
#[test]
#[ignore = "run by the test beside it"]
fn child() {
    let backends = Backend::pair();
    let front = Front::start(backends.each_ref().map(|backend| backend.address));
    let limit = Rlimit { current: Some(48), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
    println!("address {}", front.address);
    // The parent closes it when it is done.
    let _ = std::io::stdin().read(&mut [0]);
}

/// User and system time of a process in clock ticks (proc(5), stat).
fn ticks(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn accepting_pauses_without_spinning_and_recovers() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "exhaustion::child", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let address: SocketAddr = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("address ")?.1.parse().unwrap()))
        .expect("the child says where it listens");
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(address)).collect();
    std::thread::sleep(Duration::from_millis(300));
    let before = ticks(child.id());
    std::thread::sleep(Duration::from_millis(1000));
    let used = ticks(child.id()) - before;
    println!("{used} ticks of CPU in a second without descriptors");
    assert!(used < 30, "{used} ticks");
    clients.clear();
    assert_eq!(get(address, "/range.txt").status, 200);
    drop(child.stdin.take());
    child.wait().unwrap();
}

/// GETs of a file and of PHP, one after the other: each must be answered, and soon.
fn served_while(address: SocketAddr, until: Instant) {
    let mut times = Vec::new();
    let mut client = Client::connect(address);
    loop {
        for target in ["/range.txt", "/t.php"] {
            let start = Instant::now();
            assert_eq!(client.get(target).status, 200);
            times.push(start.elapsed());
        }
        if Instant::now() >= until {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    times.sort();
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{} GETs beside them: median {median:?}, slowest {slowest:?}", times.len());
    assert!(median < Duration::from_millis(50) && slowest < Duration::from_secs(1));
}

#[test]
fn a_thousand_slow_senders_are_cut_in_time_and_delay_nobody() {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).unwrap();
    let backends = Backend::pair();
    let php = backends.each_ref().map(|backend| backend.address);
    let limit = Duration::from_secs(3);
    let front = Front::start_with(php, |config| config.request_limit = limit);
    let start = Instant::now();
    let mut heads: Vec<Client> = (0..500).map(|_| Client::connect(front.address)).collect();
    let connected = start.elapsed();
    let mut bodies: Vec<Client> = (0..500).map(|_| Client::connect(front.address)).collect();
    for client in &mut bodies {
        client.request("POST", "/t.php", "Content-Length: 1000\r\n");
    }
    front.wait("all are here", |status| status.connections == 1000);
    // They go on for as long as a client that was refused may.
    let until = Instant::now() + limit + limits::WEB_LINGER_LIMIT + Duration::from_millis(500);
    let address = front.address;
    let watch = std::thread::spawn(move || served_while(address, until));
    let head = "GET /range.txt HTTP/1.1\r\nHost: a.test\r\nX: ".bytes();
    let (mut stalled_at, mut refused_at) = (Instant::now(), Vec::new());
    for (round, byte) in head.chain(std::iter::repeat(b'x')).enumerate() {
        // The limit of a head is for all of it; to one who is cut the kernel may say so.
        heads.iter_mut().for_each(|client| drop(client.stream.write(&[byte])));
        // That of a body is for the time between two pieces of it.
        if round < 10 {
            bodies.iter_mut().for_each(|client| client.send("x"));
            stalled_at = Instant::now();
        }
        let status = front.status();
        refused_at.resize(usize::try_from(status.by_class[3]).unwrap(), Instant::now());
        assert!(status.in_flight <= 1, "a body that is not here occupies no worker");
        if Instant::now() >= until {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    watch.join().unwrap();
    let left = front.status().connections;
    assert!(left <= 502, "{left} are left, the heads had {limit:?}");
    assert_eq!(refused_at.len(), 1000);
    let (first, last) = (refused_at[0] - start, refused_at[999] - stalled_at);
    println!("the first was cut after {first:?}, the last {last:?} after its last byte");
    let late = limit + Duration::from_secs(2);
    assert!(first >= limit && first < late + connected && last < late);
    for client in &mut bodies {
        assert_eq!(client.answer().status, 408);
    }
    drop((heads, bodies));
    front.wait("all are gone", |status| status.connections == 0);
    assert!(backends.iter().all(|backend| backend.seen().iter().all(|it| it.stdin.is_empty())));
}

#[test]
fn readers_that_stop_are_cut_in_time_and_delay_nobody() {
    let backends = Backend::pair();
    let php = backends.each_ref().map(|backend| backend.address);
    let limit = Duration::from_secs(3);
    let front = Front::start_with(php, |config| config.request_limit = limit);
    std::fs::File::create(front.root().join("huge.bin")).unwrap().set_len(64 << 20).unwrap();
    // More than the kernel keeps for one who does not read.
    let long = ["\r\n", &"x".repeat(10_000_000)].concat();
    backends.iter().for_each(|backend| backend.say(&long));
    let start = Instant::now();
    let mut stopped: Vec<TcpStream> = Vec::new();
    for target in ["/huge.bin", "/t.php"].into_iter().cycle().take(8) {
        let mut client = Client::connect(front.address);
        client.request("GET", target, "");
        client.stream.read_exact(&mut [0; 1000]).unwrap();
        stopped.push(client.stream);
    }
    assert_eq!(front.status().connections, 8);
    let last = Instant::now();
    backends.iter().for_each(|backend| backend.set(Mode::Echo));
    served_while(front.address, start + limit - Duration::from_millis(300));
    front.wait("they are cut, and leave their workers", |status| {
        status.connections == 0 && status.in_flight == 0
    });
    println!("the last one is cut after {:?}", last.elapsed());
    assert!(start.elapsed() >= limit && last.elapsed() < limit + Duration::from_secs(2));
    // Nobody takes what came for a whole answer.
    for mut stream in stopped {
        let mut rest = Vec::new();
        let _reset = stream.read_to_end(&mut rest);
        assert!(rest.len() < 10_000_000 - 1000, "{} bytes", rest.len());
    }
}

#[test]
fn a_client_that_leaves_within_its_body_costs_php_nothing() {
    let backends = Backend::pair();
    let front = Front::start(backends.each_ref().map(|backend| backend.address));
    // In memory, and on its way to the disk.
    for sent in [10, 600_000] {
        // The best of some: a machine that is busy with other tests may take its time once.
        let times = (0..5).map(|_| {
            let mut client = Client::connect(front.address);
            client.request("POST", "/t.php", "Content-Length: 1000000\r\n");
            client.send(vec![b'x'; sent]);
            front.wait("it is here", |status| status.connections == 1);
            let start = Instant::now();
            drop(client);
            front.wait("it is gone", |status| status.connections == 0);
            start.elapsed()
        });
        let fastest = times.min().unwrap();
        assert!(fastest < Duration::from_millis(100), "{fastest:?}");
    }
    assert!(backends.iter().all(|backend| backend.seen().is_empty()));
}
