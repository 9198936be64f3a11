//! Kept connections to php-fpm: what they are used for, and that they are in nobody's way.

use std::time::{Duration, Instant};

use crate::backend::{Backend, Mode};
use crate::client::Client;
use crate::front::Front;
use crate::records::{self, Caller, get};

/// `one` is this host, whose connections are kept.
fn front() -> (Front, [Backend; 2]) {
    let backends = Backend::pair();
    let front = Front::start(backends.each_ref().map(|backend| backend.address));
    (front, backends)
}

/// The other host's php-fpm is out, so that every request goes to the first.
fn front_alone() -> (Front, Backend) {
    let (front, [first, _]) = front();
    let mut routes = crate::front::routes();
    routes.is_host_alive[1] = false;
    front.set_routes(routes);
    (front, first)
}

fn post(client: &mut Client) -> u16 {
    client.request("POST", "/t.php", "Content-Length: 2\r\n");
    client.send("hi");
    client.answer().status
}

#[test]
fn gets_share_a_connection_to_this_host_and_none_to_the_other() {
    let (front, backends) = front();
    let mut client = Client::connect(front.address);
    for _ in 0..20 {
        assert_eq!(client.get("/t.php").status, 200);
    }
    let [here, there] = backends.each_ref().map(|backend| backend.seen().len());
    assert_eq!((here, there), (10, 10));
    assert!(backends[0].connections() <= 3, "{}", backends[0].connections());
    assert_eq!(backends[1].connections(), 10);
}

#[test]
fn requests_of_the_fastcgi_port_share_them_with_those_of_the_front() {
    let (front, backend) = front_alone();
    let mut client = Client::connect(front.address);
    let mut caller = Caller::connect(front.port);
    for id in 1..=10 {
        assert_eq!(caller.ask(get(id), id).status(), 200);
        assert_eq!(client.get("/t.php").status, 200);
    }
    assert!(backend.connections() <= 3, "{}", backend.connections());
    let before = backend.connections();
    assert_eq!(caller.ask(records::post(1, b"hi"), 1).status(), 200);
    assert_eq!(backend.connections(), before + 1);
    backend.set(Mode::Stale);
    for id in 1..=10 {
        assert_eq!(caller.ask(get(id), id).status(), 200, "its fault is nobody's");
    }
}

#[test]
fn a_post_has_a_connection_of_its_own_that_a_get_may_use_then() {
    let (front, backend) = front_alone();
    let mut client = Client::connect(front.address);
    for count in 1..=5 {
        assert_eq!(post(&mut client), 200);
        assert_eq!(backend.connections(), count);
    }
    let before = backend.connections();
    assert_eq!(client.get("/t.php").status, 200);
    assert_eq!(backend.connections(), before);
    // A body is not replayed either.
    client.request("PUT", "/t.php", "Content-Length: 2\r\n");
    client.send("hi");
    assert_eq!(client.answer().status, 200);
    assert_eq!(backend.connections(), before + 1);
}

#[test]
fn idle_connections_end_by_themselves() {
    let (front, backend) = front_alone();
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(front.address)).collect();
    for client in &mut clients {
        client.request("GET", "/t.php", "");
    }
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
    let start = Instant::now();
    front.wait("none is kept", |status| status.peers[0].idle == 0);
    while backend.open() > 0 {
        assert!(start.elapsed() < Duration::from_secs(1), "{}", backend.open());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_kept_connection_that_ends_unseen_costs_nobody_anything() {
    let (front, backend) = front_alone();
    backend.set(Mode::Stale);
    let mut client = Client::connect(front.address);
    for _ in 0..20 {
        assert_eq!(client.get("/t.php").status, 200);
    }
    assert_eq!(backend.seen().len(), 20, "what was closed unread was asked once more");
    assert!(front.status().peers[0].is_up, "it is no evidence");
}

#[test]
fn what_comes_behind_the_end_ends_the_connection() {
    let (front, backend) = front_alone();
    backend.set(Mode::Junk);
    let mut client = Client::connect(front.address);
    for count in 1..=5 {
        assert_eq!(client.get("/t.php").text(), "junk");
        assert_eq!(backend.connections(), count);
    }
}

#[test]
fn who_waits_gets_the_place_of_a_kept_connection() {
    let backends = Backend::pair();
    let php = backends.each_ref().map(|backend| backend.address);
    let front = Front::start_with(php, |config| config.php_requests_max = 2);
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(front.address)).collect();
    for _ in 0..20 {
        for client in &mut clients {
            client.request("GET", "/t.php", "");
        }
        for client in &mut clients {
            assert_eq!(client.answer().status, 200);
        }
        for client in &mut clients {
            client.request("POST", "/t.php", "Content-Length: 0\r\n");
        }
        for client in &mut clients {
            assert_eq!(client.answer().status, 200);
        }
        let peer = &front.status().peers[0];
        assert!(peer.in_flight + peer.idle <= 2, "{peer:?}");
    }
}

#[test]
fn a_worker_that_is_still_in_the_request_before_is_left() {
    // facts/web.md, fact 9
    let (front, backend) = front_alone();
    backend.set(Mode::FinishEarly(Duration::from_secs(2)));
    let mut client = Client::connect(front.address);
    assert_eq!(client.get("/t.php").text(), "early");
    let start = Instant::now();
    assert_eq!(client.get("/t.php").text(), "early");
    println!("left a worker that does not read after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    assert!(front.status().peers[0].is_up);
}

#[test]
fn a_slow_page_on_a_kept_connection_runs_once() {
    let (front, backend) = front_alone();
    let mut client = Client::connect(front.address);
    client.get("/t.php");
    backend.set(Mode::Slow(Duration::from_millis(300)));
    let before = backend.connections();
    assert_eq!(client.get("/t.php").text(), "slow");
    assert_eq!((backend.seen().len(), backend.connections()), (2, before));
}

#[test]
fn none_is_kept_where_the_operator_wants_none() {
    let backend = Backend::start();
    let front = Front::start_with([backend.address; 2], |config| config.keepalive = 0);
    let mut client = Client::connect(front.address);
    for count in 1..=6 {
        assert_eq!(client.get("/t.php").status, 200);
        assert_eq!(backend.connections(), count);
    }
}
