//! Draining: new clients are left to the other host, those who are here are answered.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tandem::routes::WebIntake;

use crate::backend::{Backend, Mode};
use crate::client::{Client, get};
use crate::front::{Front, routes};

#[test]
fn draining_drops_new_clients_and_answers_those_who_are_here() {
    let backends = Backend::pair();
    let front = Front::start(backends.each_ref().map(|backend| backend.address));
    let mut idle = Client::connect(front.virtual_address);
    idle.get("/range.txt");
    let mut plain = Client::connect(front.address);
    plain.get("/range.txt");
    backends.iter().for_each(|backend| backend.set(Mode::Slow(Duration::from_millis(500))));
    let mut busy = Client::connect(front.virtual_address);
    busy.request("GET", "/t.php", "");
    front.wait("it is at php", |status| status.in_flight == 1);
    assert!(!front.is_drained());
    let mut draining = routes();
    draining.web = WebIntake::Draining;
    front.set_routes(draining.clone());
    // The first packet is dropped: a client would repeat it after a second.
    let short = Duration::from_millis(300);
    let error = TcpStream::connect_timeout(&front.virtual_address, short).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "neither accepted nor refused");
    assert!(idle.is_closed(), "idle connections are closed");
    assert!(!front.is_drained(), "one is still in flight");
    let answer = busy.answer();
    assert_eq!((answer.status, answer.text().as_str()), (200, "slow"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(busy.is_closed());
    let start = Instant::now();
    while !front.is_drained() {
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", front.status());
    }
    assert_eq!(plain.get("/range.txt").status, 200, "the host's own address goes on");
    assert_eq!(get(front.address, "/range.txt").status, 200);
    // A client that came while draining gets through with its repeated packet.
    let address = front.virtual_address;
    let late = std::thread::spawn(move || {
        let start = Instant::now();
        let status = get(address, "/range.txt").status;
        (status, start.elapsed())
    });
    std::thread::sleep(Duration::from_millis(300));
    front.set_routes(routes());
    assert_eq!(get(front.virtual_address, "/range.txt").status, 200, "taken at once again");
    let (status, elapsed) = late.join().unwrap();
    println!("a client that came while draining waited {elapsed:?}");
    assert!(status == 200 && elapsed > Duration::from_millis(800), "{elapsed:?}");
}

#[test]
fn a_connection_without_a_request_is_waited_for_a_moment() {
    let backends = Backend::pair();
    let front = Front::start(backends.each_ref().map(|backend| backend.address));
    let mut late = Client::connect(front.virtual_address);
    let mut silent = Client::connect(front.virtual_address);
    front.wait("both are here", |status| status.connections == 2);
    let mut draining = routes();
    draining.web = WebIntake::Draining;
    front.set_routes(draining);
    assert!(!front.is_drained());
    let answer = late.get("/range.txt");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(silent.is_closed());
    assert!(front.is_drained());
}
