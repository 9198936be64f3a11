//! Many clients at once: what they hold, and that nobody else feels them.

use super::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A client that is in and asks for nothing, not even a database.
fn enter(front: &Front, user: &[u8], proof: &[u8]) -> (TcpStream, u8) {
    let mut socket = TcpStream::connect(front.address).expect("connects");
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

#[test]
fn ten_thousand_idle_sessions_and_wrong_passwords_hold_no_connection_to_a_server() {
    // Both ends are in this process.
    let files = 2 * u64::try_from(CROWD).unwrap() + 2000;
    let maximum = getrlimit(Resource::Nofile).maximum.map(|it| it.max(files));
    let limit = Rlimit { current: Some(files), maximum };
    setrlimit(Resource::Nofile, limit).expect("root may raise it");
    let pair = Pair::shared();
    let front = Front::start(pair.ports(), |config| config.sessions_max = CROWD + 10);
    front.wait("both servers were looked at", |status| status.logins >= 2);
    let logins = front.status().logins;
    let crowd: Vec<TcpStream> = (0..CROWD)
        .map(|_| {
            let (socket, first) = enter(&front, b"other", b"");
            assert_eq!(first, 0, "OK");
            socket
        })
        .collect();
    for _ in 0..100 {
        let (_, first) = enter(&front, b"other", &[7; 20]);
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
    drop(crowd);
    front.wait("they are gone", |status| status.sessions == 0);
}
