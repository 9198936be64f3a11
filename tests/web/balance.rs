//! Who gets a request: weights, the fewest connections, sessions, a backup, a drained host; and
//! clients that want too much.

use std::time::{Duration, Instant};

use tandem::web::Config;
use tandem::web::balance::Balance;
use tandem::web::limit::Rate;
use tandem::web::sticky::Sticky;

use crate::backend::{Backend, Mode};
use crate::client::{Answer, Client, get};
use crate::front::{Front, routes};
use crate::records::{self, Caller};

fn front(adjust: impl FnOnce(&mut Config)) -> (Front, [Backend; 2]) {
    let backends = Backend::pair();
    (Front::start_with(backends.each_ref().map(|backend| backend.address), adjust), backends)
}

fn seen(backends: &[Backend; 2]) -> [usize; 2] {
    backends.each_ref().map(|backend| backend.seen().len())
}

fn gets(front: &Front, count: usize) {
    for _ in 0..count {
        assert_eq!(get(front.address, "/t.php").status, 200);
    }
}

#[test]
fn requests_are_shared_by_weight() {
    let (front, backends) = front(|config| {
        config.php_weight = [("one".into(), 3)].into();
    });
    gets(&front, 12);
    assert_eq!(seen(&backends), [9, 3]);
}

#[test]
fn the_host_with_the_fewest_requests_is_asked() {
    let (front, backends) = front(|config| config.balance = Balance::LeastConn);
    backends[0].set(Mode::Slow(Duration::from_secs(2)));
    let mut clients: Vec<Client> = (0..12).map(|_| Client::connect(front.address)).collect();
    for client in &mut clients {
        let before = front.status().peers.iter().map(|peer| peer.requests).sum::<u64>();
        client.request("GET", "/t.php", "");
        front.wait("it is at a host", |status| {
            status.peers.iter().map(|peer| peer.requests).sum::<u64>() > before
                && status.peers[1].in_flight == 0
        });
    }
    // One is stuck at the first; with the second always free, it gets all but those of a tie.
    let [first, second] = seen(&backends);
    assert!(first <= 2 && second >= 10, "{first} {second}");
}

/// Sends a GET with this cookie; the answer, and the cookie that it sets.
fn visit(front: &Front, cookie: &str) -> (Answer, Option<String>) {
    let mut client = Client::connect(front.address);
    let line = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
    client.request("GET", "/t.php", &line);
    let answer = client.answer();
    let set = answer.header("set-cookie").map(str::to_owned);
    (answer, set)
}

#[test]
fn a_session_stays_with_its_host_and_moves_when_that_is_gone() {
    let (front, backends) = front(|config| config.sticky = Sticky::Cookie);
    let (_, set) = visit(&front, "");
    let set = set.expect("a cookie");
    assert!(
        set.starts_with("srv_id=") && set.ends_with("; Path=/; HttpOnly; SameSite=Lax"),
        "{set}"
    );
    let cookie = set.split(';').next().unwrap();
    let home = usize::from(seen(&backends) == [0, 1]);
    for count in 2..=9 {
        let (answer, set) = visit(&front, &format!("a=b; {cookie}"));
        assert_eq!((answer.status, set), (200, None));
        assert_eq!(seen(&backends)[home], count);
    }
    // Drained, it keeps its sessions and gets no other.
    let mut drained = routes();
    drained.is_php_draining[home] = true;
    front.set_routes(drained);
    assert_eq!(visit(&front, cookie).1, None);
    assert_eq!(seen(&backends)[home], 10);
    for _ in 0..6 {
        assert!(visit(&front, "").1.is_some_and(|set| !set.starts_with(cookie)));
    }
    assert_eq!(seen(&backends)[home], 10);
    // Gone, they move.
    let mut gone = routes();
    gone.is_host_alive[home] = false;
    front.set_routes(gone);
    let moved = visit(&front, cookie).1.expect("another cookie");
    assert!(!moved.starts_with(cookie), "{moved}");
    // Files and what was not modified say nothing of sessions.
    assert_eq!(get(front.address, "/range.txt").header("set-cookie"), None);
    backends[1 - home].set(Mode::Raw(vec![
        [crate::backend::stdout("Status: 304\r\nSet-Cookie: a=b\r\n\r\n"), crate::backend::end()]
            .concat(),
    ]));
    let (answer, _) = visit(&front, "");
    assert_eq!(answer.status, 304);
    assert!(!answer.head.contains("srv_id"), "{}", answer.head);
}

#[test]
fn a_session_by_the_fastcgi_port_stays_with_its_host_too() {
    let (front, backends) = front(|config| config.sticky = Sticky::Cookie);
    let mut caller = Caller::connect(front.port);
    let mut visit = |cookie: &str| {
        let params = [("REQUEST_METHOD", "GET"), ("HTTP_COOKIE", cookie), ("HTTPS", "on")];
        let text = caller.ask(records::request(1, &params, b""), 1).text();
        let lines = text.lines().find_map(|line| line.strip_prefix("Set-Cookie: "));
        lines.map(str::to_owned)
    };
    let set = visit("").expect("a cookie");
    assert!(set.ends_with("; Secure"), "{set}");
    let cookie = format!("a=b; {}", set.split(';').next().unwrap());
    let home = usize::from(seen(&backends) == [0, 1]);
    for count in 2..=9 {
        assert_eq!(visit(&cookie), None);
        assert_eq!(seen(&backends)[home], count);
    }
    let mut client = Client::connect(front.address);
    client.request("GET", "/t.php", &format!("Cookie: {cookie}\r\n"));
    assert_eq!(client.answer().header("set-cookie"), None, "at the front it is the same one");
    assert_eq!(seen(&backends)[home], 10);
}

#[test]
fn a_network_stays_with_its_host() {
    let (front, backends) = front(|config| {
        config.sticky = Sticky::IpHash;
        config.set_real_ip_from = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let mut client = Client::connect(front.address);
    let mut homes = [0; 2];
    for network in 0..20 {
        let before = seen(&backends);
        for host in 1..=3 {
            let line = format!("X-Forwarded-For: 10.{network}.3.{host}\r\n");
            client.request("GET", "/t.php", &line);
            assert_eq!(client.answer().status, 200);
        }
        let after = seen(&backends);
        let gained = [after[0] - before[0], after[1] - before[1]];
        assert!(gained == [3, 0] || gained == [0, 3], "{gained:?}");
        homes[usize::from(gained[1] > 0)] += 1;
    }
    assert!(homes.iter().all(|&count| count >= 4), "{homes:?}");
}

#[test]
fn a_backup_is_asked_only_when_the_other_is_out() {
    let (front, backends) = front(|config| config.php_backup = "peer".into());
    gets(&front, 8);
    assert_eq!(seen(&backends), [8, 0]);
    backends[0].set(Mode::Hang);
    gets(&front, 4);
    assert_eq!(seen(&backends)[1], 4);
    backends[0].set(Mode::Echo);
    front.wait("it is back", |status| status.peers[0].is_up);
    gets(&front, 4);
    assert_eq!(seen(&backends), [12, 4]);
}

#[test]
fn a_drained_host_ends_what_it_has_and_comes_back() {
    let (front, backends) = front(|_| {});
    backends[0].set(Mode::Slow(Duration::from_millis(600)));
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(front.address)).collect();
    for client in &mut clients {
        client.request("GET", "/t.php", "");
    }
    front.wait("two are there", |status| status.peers[0].in_flight == 2);
    let mut drained = routes();
    drained.is_php_draining[0] = true;
    front.set_routes(drained);
    assert!(front.status().peers[0].is_draining);
    let start = Instant::now();
    gets(&front, 6);
    assert!(start.elapsed() < Duration::from_millis(500), "none waits for the drained one");
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
    front.wait("it is empty", |status| status.peers[0].in_flight == 0);
    assert_eq!(seen(&backends)[0], 2, "asked for nothing again");
    front.set_routes(routes());
    backends[0].set(Mode::Echo);
    gets(&front, 6);
    assert_eq!(seen(&backends)[0], 5);
}

#[test]
fn different_requests_that_are_reset_bring_a_ping_at_once() {
    let (front, backends) = front(|_| {});
    front.wait("both are up", |status| status.peers.iter().all(|peer| peer.is_up));
    backends[0].set(Mode::CloseUnread);
    for number in 0..12 {
        assert_eq!(get(front.address, &format!("/t.php?{number}")).status, 200);
    }
    // It answers pings, so it stays: it may be the application that is broken.
    assert!(front.status().peers[0].is_up);
}

/// A header of the PROXY protocol for this client.
fn proxied(front: &Front, client: &str) -> Client {
    let mut connection = Client::connect(front.address);
    connection.send(format!("PROXY TCP4 {client} 192.0.2.8 1234 443\r\n"));
    connection
}

#[test]
fn a_client_gets_so_many_connections_and_no_more() {
    let (front, _backends) = front(|config| config.connections_max_per_client = 2);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(front.address)).collect();
    let statuses: Vec<u16> =
        clients.iter_mut().map(|client| client.get("/range.txt").status).collect();
    assert_eq!(statuses, [200, 200, 503, 503]);
    assert!(clients[3].is_closed());
    assert!(Client::connect(front.address).is_closed(), "twice as many: without a word");
    clients.clear();
    front.wait("all are gone", |status| status.connections == 0);
    for _ in 0..3 {
        assert_eq!(get(front.address, "/range.txt").status, 200);
        front.wait("it is gone", |status| status.connections == 0);
    }
}

#[test]
fn connections_of_the_fastcgi_port_are_not_counted_by_client() {
    let (front, _backends) = front(|config| config.connections_max_per_client = 1);
    let mut callers: Vec<Caller> = (0..4).map(|_| Caller::connect(front.port)).collect();
    for caller in &mut callers {
        assert_eq!(caller.ask(records::get(1), 1).status(), 200);
    }
    assert_eq!(get(front.address, "/range.txt").status, 200);
}

#[test]
fn behind_a_proxy_the_clients_it_names_are_counted() {
    let (front, _backends) = front(|config| {
        config.connections_max_per_client = 1;
        config.set_real_ip_from = vec!["127.0.0.0/8".parse().unwrap()];
        config.proxy_protocol = true;
    });
    let mut clients: Vec<Client> = ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"]
        .iter()
        .map(|client| proxied(&front, client))
        .collect();
    let statuses: Vec<u16> =
        clients.iter_mut().map(|client| client.get("/range.txt").status).collect();
    assert_eq!(statuses, [200, 503, 200, 200]);
    assert_eq!(clients[0].get("/range.txt").status, 200, "and on");
}

#[test]
fn a_client_asks_for_php_so_often_and_no_more() {
    let (front, backends) = front(|config| {
        config.limit_req = Rate::parse("2r/m");
        config.limit_req_burst = 3;
        config.set_real_ip_from = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let mut client = Client::connect(front.address);
    for (address, expected) in
        [("192.0.2.1", [200, 200, 200, 200, 503, 503]), ("192.0.2.2", [200; 6])]
    {
        for status in expected.into_iter().take(if address == "192.0.2.1" { 6 } else { 4 }) {
            client.request("GET", "/t.php", &format!("X-Forwarded-For: {address}\r\n"));
            let answer = client.answer();
            assert_eq!(answer.status, status, "{address}");
            if status == 503 {
                assert_eq!(answer.header("retry-after"), Some("1"));
            }
        }
    }
    for _ in 0..9 {
        assert_eq!(client.get("/range.txt").status, 200, "files are not limited");
    }
    assert_eq!(seen(&backends).iter().sum::<usize>(), 8);
}
