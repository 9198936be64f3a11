//! The disk under the front: files replaced and cut short while they are sent, a log that is moved
//! away, and no room for a log or for large bodies (a process with file systems of its own).

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::client::{Client, get};
use crate::front::{Front, Tree};

fn front() -> (Front, [Backend; 2]) {
    let backends = Backend::pair();
    (Front::start(backends.each_ref().map(|backend| backend.address)), backends)
}

/// Whether all bytes are `a`, all of them `b`, and as many as that file has.
fn is_one_of(body: &[u8], lengths: [usize; 2]) -> bool {
    let Some(&first) = body.first() else { return false };
    let length = lengths[usize::from(first == b'b')];
    body.len() == length && body.iter().all(|&byte| byte == first)
}

#[test]
fn a_file_that_is_replaced_is_sent_old_or_new_and_never_mixed() {
    let (front, _backends) = front();
    // From memory, in one write, by sendfile.
    let files =
        [("s.txt", [900, 1100]), ("m.txt", [17_000, 19_000]), ("l.txt", [2 << 20, 3 << 20])];
    let replace = |name: &str, lengths: [usize; 2], which: usize| {
        let root = front.root();
        let bytes = vec![b"ab"[which]; lengths[which]];
        fs::write(root.join("new"), bytes).unwrap();
        fs::rename(root.join("new"), root.join(name)).unwrap();
    };
    files.iter().for_each(|&(name, lengths)| replace(name, lengths, 0));
    let is_over = AtomicBool::new(false);
    let mut seen = BTreeMap::new();
    std::thread::scope(|scope| {
        let readers: Vec<_> = files
            .iter()
            .map(|&(name, lengths)| {
                let (is_over, address) = (&is_over, front.address);
                scope.spawn(move || {
                    let mut client = Client::connect(address);
                    let mut count = [0; 2];
                    while !is_over.load(Ordering::Relaxed) {
                        let answer = client.get(&format!("/{name}"));
                        assert!(answer.status == 200 && answer.is_whole);
                        assert!(is_one_of(&answer.body, lengths), "{name}: {}", answer.head);
                        count[usize::from(answer.body[0] == b'b')] += 1;
                    }
                    (name, count)
                })
            })
            .collect();
        let end = Instant::now() + Duration::from_secs(3);
        for which in [1, 0].into_iter().cycle() {
            files.iter().for_each(|&(name, lengths)| replace(name, lengths, which));
            std::thread::sleep(Duration::from_millis(20));
            if Instant::now() > end {
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
        seen.extend(readers.into_iter().map(|reader| reader.join().unwrap()));
    });
    println!("old and new: {seen:?}");
    assert!(seen.values().flatten().all(|&count| count > 0), "{seen:?}");
}

#[test]
fn a_file_that_is_cut_short_ends_its_connection() {
    let (front, _backends) = front();
    let path = front.root().join("cut.bin");
    let file = fs::File::create(&path).unwrap();
    file.set_len(64 << 20).unwrap();
    let mut client = Client::connect(front.address);
    client.request("GET", "/cut.bin", "");
    client.stream.read_exact(&mut [0; 1000]).unwrap();
    file.set_len(1000).unwrap();
    let start = Instant::now();
    let mut rest = Vec::new();
    let _reset = client.stream.read_to_end(&mut rest);
    assert!(rest.len() < 64 << 20, "nobody takes it for the whole file");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    front.wait("it is gone", |status| status.connections == 0);
    // A small one, which is read at once: the length is that of the file as it is.
    fs::write(&path, "short").unwrap();
    assert_eq!(get(front.address, "/cut.bin").text(), "short");
}

fn numbers(text: &str) -> Vec<u32> {
    let number = |line: &str| {
        let is_whole = line.starts_with("127.0.0.1 - - [") && line.ends_with(" 0");
        assert!(is_whole && line.matches("127.0.0.1").count() == 1, "torn: {line:?}");
        line.split_once("/range.txt?")?.1.split(' ').next()?.parse().ok()
    };
    text.lines().filter_map(number).collect()
}

#[test]
fn no_line_of_the_access_log_is_lost_when_it_is_moved_away() {
    let backends = Backend::pair();
    let php = backends.each_ref().map(|backend| backend.address);
    let tree = Tree::new();
    let log = tree.base.join("access.log");
    let path = log.to_str().unwrap().to_owned();
    let front = Front::start_with(php, |config| config.access_log = path);
    let agent = format!("User-Agent: {}\r\n", "x".repeat(2000));
    let mut client = Client::connect(front.address);
    let mut moved = 0;
    for number in 0..3000 {
        client.request("GET", &format!("/range.txt?{number}"), &agent);
        assert_eq!(client.answer().status, 200);
        // As logrotate does, without a signal: every few writes of the log.
        if number % 50 == 49 && fs::rename(&log, tree.base.join(format!("old.{moved}"))).is_ok() {
            moved += 1;
        }
    }
    drop(front);
    let old = (0..moved).map(|number| tree.base.join(format!("old.{number}")));
    let text: String = old.chain([log]).map(|it| fs::read_to_string(it).unwrap()).collect();
    assert!(moved > 10, "{moved}");
    assert_eq!(numbers(&text), (0..3000).collect::<Vec<u32>>());
}

// ---- no room -------------------------------------------------------------------------------

const LOG: &str = "/tmp/access.log";

/// A front whose spool directories and log lie on small file systems that nobody else sees.
#[test]
#[ignore = "run by the tests beside it"]
fn child() {
    let backends = Backend::pair();
    let php = backends.each_ref().map(|backend| backend.address);
    let front = Front::start_with(php, |config| config.access_log = LOG.into());
    println!("address {}", front.address);
    // The parent closes it when it is done.
    let _ = std::io::stdin().read(&mut [0]);
}

struct Cramped {
    child: Child,
    /// Open to the end: the child's last words go there.
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

const MOUNTS: &str = "mount -t tmpfs -o size=1m tmpfs /var/tmp && \
    mount -t tmpfs -o size=64k tmpfs /tmp && exec \"$@\"";

impl Cramped {
    /// `None` without the right to mount.
    fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can mount a small file system");
            return None;
        }
        let mut child = Command::new("unshare")
            .args(["--mount", "bash", "-c", MOUNTS, "cramped"])
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "disk::child", "--nocapture"])
            // The document root lies elsewhere.
            .env("TMPDIR", env!("CARGO_TARGET_TMPDIR"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let address = (&mut output)
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("address ")?.1.parse().ok())
            .expect("the child says where it listens");
        Some(Self { child, output, address })
    }

    /// A path as the child sees it.
    fn path(&self, inside: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.child.id())).join(inside.trim_start_matches('/'))
    }

    fn post(&self, length: usize) -> Client {
        let mut client = Client::connect(self.address);
        client.request("POST", "/t.php", &format!("Content-Length: {length}\r\n"));
        client
    }
}

impl Drop for Cramped {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let mut words = String::new();
        let _is_text = self.output.read_to_string(&mut words);
        let status = self.child.wait().unwrap();
        assert!(status.success() || std::thread::panicking(), "the child: {status}: {words}");
    }
}

#[test]
fn without_room_for_bodies_the_large_ones_get_507_and_room_is_enough_to_recover() {
    let Some(front) = Cramped::start() else { return };
    let mut holder = front.post(900_000);
    holder.send(vec![b'x'; 800_000]);
    std::thread::sleep(Duration::from_millis(200));
    for _ in 0..3 {
        let mut refused = front.post(800_000);
        refused.send(vec![b'y'; 800_000]);
        assert_eq!(refused.answer().status, 507);
        assert!(refused.is_closed());
        // Others need no room.
        let mut small = front.post(1000);
        small.send(vec![b'z'; 1000]);
        assert!(small.answer().text().contains("stdin=1000 "));
        assert_eq!(get(front.address, "/large.bin").body.len(), 3_000_000);
    }
    let sum = |count: u64, byte: u8| format!("stdin={count} sum={}\n", count * u64::from(byte));
    holder.send(vec![b'x'; 100_000]);
    assert!(holder.answer().text().contains(&sum(900_000, b'x')));
    let mut again = front.post(800_000);
    again.send(vec![b'y'; 800_000]);
    assert!(again.answer().text().contains(&sum(800_000, b'y')));
}

#[test]
fn without_room_for_the_log_requests_are_served_and_no_line_is_torn() {
    let Some(front) = Cramped::start() else { return };
    let log = front.path(LOG);
    let filler = front.path("/tmp/filler");
    let ask = |first: u32| {
        for number in first..first + 30 {
            assert_eq!(get(front.address, &format!("/range.txt?{number}")).status, 200);
        }
        // They are written within a second.
        std::thread::sleep(Duration::from_millis(1300));
    };
    ask(0);
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 1024]).is_ok() {}
    for round in 1..6 {
        ask(round * 30);
    }
    fs::remove_file(&filler).unwrap();
    drop(file);
    ask(1000);
    let text = fs::read_to_string(&log).unwrap();
    let seen = numbers(&text);
    assert!(text.ends_with('\n'));
    let expected: Vec<u32> = (0..30).chain(1000..1030).collect();
    let kept: Vec<u32> = seen.iter().copied().filter(|it| *it < 30 || *it >= 1000).collect();
    assert_eq!(kept, expected);
    assert!(seen.len() < 30 * 7, "the file system was full: {}", seen.len());
}
