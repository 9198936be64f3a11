//! The FastCGI port as a web server in front sees it: facts/web.md 1, 2.2, 7 "Relay detail".

use std::net::Ipv4Addr;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use tandem::limits;
use tandem::web::place::Place;

use crate::backend::{self, Backend, Mode, end, stdout};
use crate::front::Front;
use crate::records::{Caller, Reply, begin, get, pairs, post, record, request};

fn front() -> (Front, [Backend; 2]) {
    let backends = Backend::pair();
    (Front::start(backends.each_ref().map(|backend| backend.address)), backends)
}

fn closed_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

#[test]
fn a_request_goes_to_php_unchanged_under_any_id() {
    let (front, _backends) = front();
    let mut caller = Caller::connect(front.port);
    let file = "proxy:fcgi://127.0.0.1:9001/var/www/t.php/info";
    let long = "v".repeat(40_000);
    for id in [1, 2, 300, u16::MAX] {
        let params = [
            ("REQUEST_METHOD", "GET"),
            ("SCRIPT_FILENAME", file),
            ("PATH_INFO", "/info"),
            ("HTTP_LONG", &long),
            ("HTTP_ALSO", &long),
            ("EMPTY", ""),
        ];
        let reply = caller.ask(request(id, &params, b""), id);
        assert_eq!((reply.status(), reply.app_status, reply.protocol_status), (200, 0, 0));
        for (name, value) in params {
            assert!(reply.text().contains(&format!("{name}={value}\n")), "{name}");
        }
    }
    assert_eq!(front.status().requests, 4);
}

#[test]
fn a_request_may_come_in_any_pieces() {
    let (front, backends) = front();
    let bytes = post(7, b"hello");
    let mut caller = Caller::connect(front.port);
    for cut in 1..bytes.len() {
        caller.send(&bytes[..cut]);
        // On loopback the first piece is read before the second is written, or they are one.
        std::thread::sleep(Duration::from_micros(300));
        let reply = caller.ask(&bytes[cut..], 7);
        assert!(reply.text().contains("stdin=5 sum=532\n"), "cut at {cut}: {}", reply.text());
    }
    for byte in &bytes {
        caller.send([*byte]);
    }
    assert!(caller.reply(7).text().contains("stdin=5 sum=532\n"));
    let seen: usize = backends.iter().map(|backend| backend.seen().len()).sum();
    assert_eq!(seen, bytes.len());
}

#[test]
fn requests_sent_ahead_are_answered_in_order() {
    let (front, _backends) = front();
    let mut caller = Caller::connect(front.port);
    let bodies: Vec<String> = (0..20).map(|n| "x".repeat(n * 1000)).collect();
    caller.send(bodies.iter().flat_map(|body| post(1, body.as_bytes())).collect::<Vec<_>>());
    for body in &bodies {
        let reply = caller.reply(1);
        assert!(reply.text().contains(&format!("stdin={} ", body.len())), "{}", reply.text());
    }
}

#[test]
fn a_second_request_at_once_is_refused_and_the_first_goes_on() {
    let (front, backends) = front();
    backends.iter().for_each(|backend| backend.set(Mode::Slow(Duration::from_millis(200))));
    let mut caller = Caller::connect(front.port);
    caller.send([get(1), get(2)].concat());
    let refused = Reply { protocol_status: 1, ..Reply::default() };
    assert_eq!(caller.reply(2), refused);
    assert_eq!(caller.reply(1).text(), "\r\nslow");
    assert_eq!(caller.ask(get(2), 2).text(), "\r\nslow", "one after the other is fine");
}

#[test]
fn variables_are_told_even_while_a_request_runs() {
    let (front, backends) = front();
    backends.iter().for_each(|backend| backend.set(Mode::Slow(Duration::from_millis(200))));
    let mut caller = Caller::connect(front.port);
    let names = ["FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS"].map(|name| (name, ""));
    caller.send([get(1), record(9, 0, &pairs(&names)), record(42, 0, b"what")].concat());
    let told = [("FCGI_MAX_CONNS", "32"), ("FCGI_MAX_REQS", "32"), ("FCGI_MPXS_CONNS", "0")];
    assert_eq!(caller.read(), Some((10, 0, pairs(&told))));
    assert_eq!(caller.read(), Some((11, 0, vec![42, 0, 0, 0, 0, 0, 0, 0])));
    assert_eq!(caller.reply(1).text(), "\r\nslow");
}

#[test]
fn a_connection_is_kept_only_if_the_front_wants_it() {
    let (front, _backends) = front();
    let mut caller = Caller::connect(front.port);
    let mut bytes = get(1);
    bytes[10] = 0; // the flags of BEGIN_REQUEST
    assert_eq!(caller.ask(bytes, 1).status(), 200);
    assert!(caller.is_closed());
    let mut caller = Caller::connect(front.port);
    assert_eq!(caller.ask(begin(5, 2, 1), 5).protocol_status, 3, "an authorizer");
    assert_eq!(caller.ask(get(1), 1).status(), 200);
    assert_eq!(caller.ask(begin(5, 3, 0), 5).protocol_status, 3, "a filter");
    assert!(caller.is_closed());
}

#[test]
fn settings_of_php_are_dropped_unless_configured() {
    let params = [("REQUEST_METHOD", "GET"), ("PHP_VALUE", "a=b"), ("PHP_ADMIN_VALUE", "c=d")];
    for is_allowed in [false, true] {
        let backends = Backend::pair();
        let php = backends.each_ref().map(|backend| backend.address);
        let front = Front::start_with(php, |config| config.fastcgi_php_value = is_allowed);
        let text = Caller::connect(front.port).ask(request(1, &params, b""), 1).text();
        assert_eq!(text.contains("PHP_VALUE=a=b\n"), is_allowed);
        assert_eq!(text.contains("PHP_ADMIN_VALUE=c=d\n"), is_allowed);
    }
}

#[test]
fn an_abort_frees_the_peer_and_keeps_the_connection() {
    let (front, backends) = front();
    backends.iter().for_each(|backend| backend.set(Mode::Slow(Duration::from_secs(5))));
    let mut caller = Caller::connect(front.port);
    caller.send(get(3));
    front.wait("it runs", |status| status.in_flight == 1);
    assert_eq!(caller.ask(record(2, 3, b""), 3), Reply::default());
    front.wait("nothing runs", |status| status.in_flight == 0);
    let left = || backends.iter().map(Backend::abandoned).sum::<usize>();
    while left() == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    backends.iter().for_each(|backend| backend.set(Mode::Echo));
    // In the same segment as its request, and in the middle of a body.
    assert_eq!(caller.ask([get(4), record(2, 4, b"")].concat(), 4), Reply::default());
    let whole = post(5, b"hello");
    caller.send(&whole[..whole.len() - record(5, 5, b"").len()]);
    assert_eq!(caller.ask(record(2, 5, b""), 5).text(), "");
    assert_eq!(caller.ask(get(6), 6).status(), 200);
    front.wait("nobody waits", |status| status.in_flight == 0 && status.queued == 0);
}

#[test]
fn a_body_of_another_length_than_was_said_is_400() {
    let (front, backends) = front();
    for (length, stdin) in [("5", &b"four"[..]), ("3", b"four"), ("x", b"four"), ("4", b"")] {
        let params = [("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", length)];
        let mut caller = Caller::connect(front.port);
        assert_eq!(caller.ask(request(1, &params, stdin), 1).status(), 400, "{length}");
        assert!(caller.is_closed());
    }
    assert!(backends.iter().all(|backend| backend.seen().is_empty()));
    // A body that was streamed in front: its length is known by now.
    let params = [("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "")];
    for params in [&params[..], &params[..1]] {
        let reply = Caller::connect(front.port).ask(request(1, params, b"four"), 1);
        assert!(reply.text().contains("CONTENT_LENGTH=4\n"), "{}", reply.text());
    }
}

#[test]
fn what_is_too_large_is_refused_before_it_is_here() {
    let (front, _backends) = front();
    // The test's body_max is 2 MiB.
    let params = [("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "3000000")];
    let mut caller = Caller::connect(front.port);
    let whole = request(1, &params, b"");
    assert_eq!(caller.ask(&whole[..whole.len() - 11], 1).status(), 413);
    let mut caller = Caller::connect(front.port);
    let stdin = vec![b'x'; (2 << 20) + 1];
    assert_eq!(caller.ask(request(1, &params[..1], &stdin), 1).status(), 413);
    let mut caller = Caller::connect(front.port);
    let value = "v".repeat(limits::WEB_PARAMS_BYTES_MAX);
    assert_eq!(caller.ask(request(1, &[("A", &value)], b""), 1).status(), 431);
    let mut caller = Caller::connect(front.port);
    let broken = [begin(1, 1, 1), record(4, 1, b"\x05\x05AB"), record(4, 1, b"")].concat();
    assert_eq!(caller.ask(broken, 1).status(), 400);
}

#[test]
fn a_large_upload_arrives_whole() {
    let (front, _backends) = front();
    let body: Vec<u8> = (0..1_900_000u32).map(|n| (n % 251) as u8).collect();
    let sum: u64 = body.iter().map(|&byte| u64::from(byte)).sum();
    let mut caller = Caller::connect(front.port);
    for _ in 0..3 {
        let reply = caller.ask(post(1, &body), 1);
        let expected = format!("stdin=1900000 sum={sum}\n");
        assert!(reply.text().contains(&expected), "{:.60}", reply.text());
    }
}

#[test]
fn a_large_answer_reaches_a_slow_reader_whole() {
    let (front, backends) = front();
    let body: String = (0..500_000).map(|n| format!("{n:09}\n")).collect();
    let padded = backend::padded(6, format!("A: b\r\n\r\n{body}").as_bytes(), 255);
    let answer = [padded, end()].concat();
    backends.iter().for_each(|backend| backend.set(Mode::Raw(vec![answer.clone()])));
    let mut caller = Caller::connect(front.port);
    caller.send(get(9));
    let mut reply = Reply::default();
    loop {
        std::thread::sleep(Duration::from_millis(1));
        let Some((kind, id, content)) = caller.read() else { panic!("it ended early") };
        assert_eq!(id, 9);
        if kind == 3 {
            break;
        }
        reply.stdout.extend_from_slice(&content);
    }
    assert!(reply.text() == format!("A: b\r\n\r\n{body}"));
}

#[test]
fn what_a_script_logs_reaches_the_front() {
    let (front, backends) = front();
    let log = backend::record(7, b"PHP Warning: oops");
    let head = stdout("Status: 404 Not Found\r\n");
    let answer =
        [head, log.clone(), stdout("\r\nbody"), log, backend::record(3, &[0, 0, 0, 9, 0, 0, 0, 0])];
    backends.iter().for_each(|backend| backend.set(Mode::Raw(answer.to_vec())));
    let reply = Caller::connect(front.port).ask(get(1), 1);
    assert_eq!(reply.text(), "Status: 404 Not Found\r\n\r\nbody");
    assert_eq!(reply.stderr, b"PHP Warning: oopsPHP Warning: oops");
    assert_eq!(reply.app_status, 9);
    assert_eq!(front.status().by_class[3], 1);
}

#[test]
fn gets_survive_every_way_one_host_can_fail() {
    let overloaded = backend::record(3, &[0, 0, 0, 0, 2, 0, 0, 0]);
    for mode in [
        Mode::CloseUnread,
        Mode::CloseAfterRead,
        Mode::ResetAfterRead,
        Mode::Raw(vec![stdout("A: b\r\n")]),
        Mode::Raw(vec![backend::record(7, b"log"), end()]),
        Mode::Raw(vec![overloaded]),
        Mode::Raw(vec![b"\x02garbage and more".to_vec()]),
    ] {
        for bad in 0..2 {
            let (front, backends) = front();
            backends[bad].set(mode.clone());
            let mut caller = Caller::connect(front.port);
            for _ in 0..4 {
                let reply = caller.ask(get(1), 1);
                assert!(reply.text().contains("stdin=0"), "{mode:?} at {bad}: {}", reply.text());
            }
            for method in ["HEAD", "PUT", "DELETE", "OPTIONS"] {
                let asked = request(1, &[("REQUEST_METHOD", method)], b"");
                assert!(caller.ask(asked, 1).text().contains("stdin=0"), "{mode:?}: {method}");
            }
        }
    }
}

#[test]
fn a_post_that_was_read_is_502_and_delivered_once() {
    let (front, backends) = front();
    backends.iter().for_each(|backend| backend.set(Mode::CloseAfterRead));
    let mut caller = Caller::connect(front.port);
    assert_eq!(caller.ask(post(1, b"hi"), 1).status(), 502);
    let seen = || backends.iter().map(|backend| backend.seen().len()).sum::<usize>();
    assert_eq!(seen(), 1);
    assert_eq!(caller.ask(get(1), 1).status(), 502);
    assert_eq!(seen(), 3, "a GET is delivered to both");
    // Nobody knows what an unknown method does.
    assert_eq!(caller.ask(request(1, &[("REQUEST_METHOD", "get")], b""), 1).status(), 502);
    assert_eq!(seen(), 4);
}

#[test]
fn both_hosts_gone_is_503_for_everybody_and_the_connection_stays() {
    let front = Front::start([closed_port(), closed_port()]);
    let mut caller = Caller::connect(front.port);
    for _ in 0..3 {
        for bytes in [get(1), post(1, b"hi")] {
            let reply = caller.ask(bytes, 1);
            assert!(
                reply.text().starts_with("Status: 503 Service Unavailable\r\nRetry-After: 1\r\n")
            );
            assert_eq!((reply.app_status, reply.protocol_status), (0, 0));
        }
    }
}

#[test]
fn a_post_goes_to_the_living_host() {
    for dead in 0..2 {
        let backend = Backend::start();
        let mut php = [backend.address; 2];
        php[dead] = closed_port();
        let front = Front::start(php);
        let mut caller = Caller::connect(front.port);
        for _ in 0..4 {
            assert_eq!(caller.ask(post(1, b"hi"), 1).status(), 200);
        }
    }
}

#[test]
fn an_answer_that_breaks_off_has_no_end() {
    let (front, backends) = front();
    let begun = stdout("A: b\r\n\r\nhalf of ");
    backends.iter().for_each(|backend| backend.set(Mode::Raw(vec![begun.clone(), vec![1, 6]])));
    let mut caller = Caller::connect(front.port);
    caller.send(get(1));
    let mut reply = Reply::default();
    assert!(!caller.read_into(1, &mut reply), "the connection ends instead");
    assert_eq!(reply.text(), "A: b\r\n\r\nhalf of ");
}

#[test]
fn a_front_that_leaves_frees_its_peer_at_once() {
    let (front, backends) = front();
    backends.iter().for_each(|backend| backend.set(Mode::Slow(Duration::from_secs(5))));
    let mut caller = Caller::connect(front.port);
    caller.send(get(1));
    front.wait("it runs", |status| status.in_flight == 1);
    let start = Instant::now();
    drop(caller);
    front.wait("nothing runs", |status| status.in_flight == 0 && status.connections == 0);
    while backends.iter().map(Backend::abandoned).sum::<usize>() == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("freed after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_millis(500));
}

#[test]
fn kept_connections_hold_no_worker_and_more_requests_wait_for_their_turn() {
    let backends = Backend::pair();
    let php = backends.each_ref().map(|backend| backend.address);
    let front = Front::start_with(php, |config| {
        config.php_requests_max = 2;
        config.queue_limit = Duration::from_millis(900);
    });
    let mut callers: Vec<Caller> = (0..12).map(|_| Caller::connect(front.port)).collect();
    for caller in &mut callers {
        assert_eq!(caller.ask(get(1), 1).status(), 200);
    }
    assert_eq!((front.status().connections, front.status().in_flight), (12, 0));
    backends.iter().for_each(|backend| backend.set(Mode::Slow(Duration::from_millis(600))));
    for caller in &mut callers {
        caller.send(get(1));
    }
    front.wait("they wait", |status| status.in_flight == 4 && status.queued == 8);
    let replies: Vec<Reply> = callers.iter_mut().map(|caller| caller.reply(1)).collect();
    let count = |status| replies.iter().filter(|reply| reply.status() == status).count();
    assert_eq!((count(200), count(503)), (8, 4));
    assert!(replies.iter().any(|reply| reply.text().contains("\r\nRetry-After: 1\r\n")));
    front.wait("nobody is left", |status| status.in_flight == 0 && status.queued == 0);
}

#[test]
fn a_hung_host_costs_less_than_a_second() {
    let (front, backends) = front();
    front.wait("both are up", |status| status.peers.iter().all(|peer| peer.is_up));
    backends[0].set(Mode::Hang);
    let start = Instant::now();
    let mut callers: Vec<Caller> = (0..8).map(|_| Caller::connect(front.port)).collect();
    for caller in &mut callers {
        caller.send(get(1));
    }
    for caller in &mut callers {
        assert_eq!(caller.reply(1).status(), 200);
    }
    println!("one host hung: slowest GET {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_millis(1000), "{:?}", start.elapsed());
}

#[test]
fn a_unix_socket_is_for_its_group_and_a_stale_one_is_replaced() {
    let path = std::env::temp_dir().join(format!("tandem-port-{}.sock", std::process::id()));
    let text = path.to_str().unwrap().to_owned();
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "it is stale");
    let backends = Backend::pair();
    let php = backends.each_ref().map(|backend| backend.address);
    let place = format!("unix:{text}").parse().unwrap();
    let start = || Front::start_with(php, |config| config.fastcgi_listen = vec![place]);
    let front = start();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let mut caller = Caller::connect_unix(&text);
    for _ in 0..3 {
        assert_eq!(caller.ask(get(1), 1).status(), 200);
    }
    drop(front);
    assert!(!path.exists(), "it goes with its process");
}

#[test]
fn a_socket_where_somebody_listens_is_left_alone() {
    let path = std::env::temp_dir().join(format!("tandem-port-{}-used.sock", std::process::id()));
    let _somebody = UnixListener::bind(&path).unwrap();
    let place = format!("unix:{}", path.display()).parse().unwrap();
    let why = Front::refusal(|config| config.fastcgi_listen = vec![place]);
    assert!(why.contains("in use") && why.contains(path.to_str().unwrap()), "{why}");
    assert!(path.exists());
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "no socket").unwrap();
    let place = format!("unix:{}", path.display()).parse().unwrap();
    let why = Front::refusal(|config| config.fastcgi_listen = vec![place]);
    assert!(why.contains("in use"), "{why}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "no socket");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn the_access_log_has_the_fronts_requests() {
    let backends = Backend::pair();
    let php = backends.each_ref().map(|backend| backend.address);
    let log = std::env::temp_dir().join(format!("tandem-port-log-{}", std::process::id()));
    let path = log.to_str().unwrap().to_owned();
    let front = Front::start_with(php, |config| config.access_log = path);
    let params = [
        ("REQUEST_METHOD", "GET"),
        ("REQUEST_URI", "/a?b"),
        ("SERVER_PROTOCOL", "HTTP/2.0"),
        ("REMOTE_ADDR", "192.0.2.7"),
        ("HTTP_USER_AGENT", "me"),
    ];
    let mut caller = Caller::connect(front.port);
    backends.iter().for_each(|backend| backend.say("Status: 201 Made\r\n\r\n12345"));
    assert_eq!(caller.ask(request(1, &params, b""), 1).status(), 201);
    backends.iter().for_each(|backend| backend.set(Mode::CloseAfterRead));
    assert_eq!(caller.ask(request(1, &params, b""), 1).status(), 502);
    drop((caller, front));
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_file(&log).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("192.0.2.7 - - ["), "{text}");
    assert!(lines[0].contains("\"GET /a?b HTTP/2.0\" 201 5 \"-\" \"me\" "), "{text}");
    assert!(lines[1].contains("HTTP/2.0\" 502 ") && lines[1].ends_with(" 2"), "{text}");
}

#[test]
fn a_reload_reaches_kept_connections_and_listens_nowhere_else() {
    let (front, _backends) = front();
    let mut caller = Caller::connect(front.port);
    let params = [("REQUEST_METHOD", "GET"), ("PHP_VALUE", "a=b")];
    let mut is_passed = || caller.ask(request(1, &params, b""), 1).text().contains("PHP_VALUE");
    assert!(!is_passed());
    front.reload(|config| config.fastcgi_php_value = true).unwrap();
    assert!(is_passed());
    let place: Place = "127.0.0.1:9001".parse().unwrap();
    let why = front.reload(|config| config.fastcgi_listen = vec![place]);
    assert!(why.is_err_and(|why| why.contains("web.fastcgi_listen") && why.contains("restart")));
    assert!(is_passed(), "nothing was taken");
}
