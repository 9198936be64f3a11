//! Many clients at once: what they hold, and that nobody else feels them.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;

use super::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A client that is in and asks for nothing, not even a database.
fn enter(address: SocketAddr, user: &[u8], proof: &[u8]) -> (TcpStream, u8) {
    let mut socket = TcpStream::connect(address).expect("connects");
    let mut buffer = [0; 512];
    let greeting = socket.read(&mut buffer).expect("a greeting");
    assert!(greeting > 40 && buffer[4] == 10, "protocol 10");
    // PROTOCOL_41, SECURE_CONNECTION; utf8mb4.
    let mut payload = vec![0x01, 0x82, 0, 0, 0, 0, 0, 1, 45];
    payload.extend_from_slice(&[0; 23]);
    payload.extend_from_slice(user);
    payload.extend_from_slice(&[0, proof.len().try_into().unwrap()]);
    payload.extend_from_slice(proof);
    let mut bytes = vec![payload.len().try_into().unwrap(), 0, 0, 1];
    bytes.extend_from_slice(&payload);
    socket.write_all(&bytes).expect("sends");
    assert!(socket.read(&mut buffer).expect("an answer") > 4);
    (socket, buffer[4])
}

const CROWD: usize = 10_000;
const ADDRESS: &str = "TANDEM_CROWD_ADDRESS";

/// As many files as this process may have at all.
fn raise_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the maximum");
}

/// The other process: clients have files of their own to open.
#[test]
#[ignore = "the clients of ten_thousand_idle_sessions, which starts it"]
fn the_crowd_itself() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    let address = address.parse().expect("an address");
    raise_limit();
    let crowd: Vec<TcpStream> = (0..CROWD)
        .map(|_| {
            let (socket, first) = enter(address, b"other", b"");
            assert_eq!(first, 0, "OK");
            socket
        })
        .collect();
    println!("all are in");
    let mut until_closed = String::new();
    std::io::stdin().read_to_string(&mut until_closed).expect("a pipe");
    drop(crowd);
}

#[test]
fn ten_thousand_idle_sessions_and_wrong_passwords_hold_no_connection_to_a_server() {
    raise_limit();
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |config| config.sessions_max = CROWD + 10);
    front.wait("both servers were looked at", |status| status.logins >= 2);
    let logins = front.status().logins;
    let mut crowd = Command::new(std::env::current_exe().expect("this test"))
        .args(["--ignored", "--exact", "--nocapture", "crowd::the_crowd_itself"])
        .env(ADDRESS, front.address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(crowd.stdout.take().expect("a pipe")).lines();
    let is_in = lines.any(|line| line.is_ok_and(|line| line.contains("all are in")));
    assert!(is_in, "{:?}; {:?}", crowd.wait(), front.status());
    for _ in 0..100 {
        let (_, first) = enter(front.address, b"other", &[7; 20]);
        assert_eq!(first, 0xff, "ERR");
    }
    let status = front.status();
    assert_eq!((status.sessions, status.logins), (CROWD, logins), "{status:?}");
    let mut conn = connect(&front);
    assert_eq!(mark(&mut conn), "second");
    let since = Clock::now();
    for _ in 0..200 {
        mark(&mut conn);
    }
    // Not a measurement: a scan of all sessions for every query would take longer than this.
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    drop(conn);
    drop(crowd.stdin.take());
    assert!(crowd.wait().expect("our own child").success());
    drop(lines);
    front.wait("they are gone", |status| status.sessions == 0);
}
