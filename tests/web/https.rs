//! HTTPS: handshakes, what a request in TLS gets, the redirect, and connections that begin badly.

use std::io::{ErrorKind, Read as _, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ProtocolVersion};
use tandem::routes::WebIntake;
use tandem::web::https::Protocol;
use tandem::web::{Config, site};

use crate::backend::{Backend, Mode};
use crate::client::{Client, dial, get};
use crate::front::{Front, routes};
use crate::keys::{Keys, secure, secured};

pub(crate) fn front(keys: &Keys, adjust: impl FnOnce(&mut Config)) -> (Front, [Backend; 2]) {
    let backends = Backend::pair();
    let php = backends.each_ref().map(|backend| backend.address);
    let front = Front::start_with(php, |config| {
        keys.show("a", config);
        adjust(config);
        config.check(&[]).unwrap();
    });
    (front, backends)
}

#[test]
fn both_versions_are_spoken_and_php_knows() {
    let keys = Keys::new();
    let (front, _backends) = front(&keys, |config| {
        config.hsts_max_age = Some(Duration::from_secs(3600));
    });
    let [address, _] = front.ssl.unwrap();
    for (version, expected) in
        [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)]
    {
        let mut client = secured(&keys.trust(&[version]), address, "a.test");
        assert_eq!(client.stream.conn.protocol_version(), Some(expected));
        let text = client.get("/t.php?x").text();
        for line in ["HTTPS=on", "REQUEST_SCHEME=https", "QUERY_STRING=x", "SERVER_NAME=a.test"] {
            assert!(text.contains(&format!("{line}\n")), "{line}: {text}");
        }
        assert!(text.contains(&format!("SERVER_PORT={}\n", address.port())), "{text}");
        for (target, status) in [("/range.txt", 200), ("/t.php", 200), ("/no", 404), ("/bare", 301)]
        {
            let answer = client.get(target);
            assert_eq!(answer.status, status);
            assert_eq!(answer.header("strict-transport-security"), Some("max-age=3600"));
        }
        assert_eq!(client.get("/htmldir").header("location"), Some("/htmldir/"));
        // RFC 9112, 3.2.2: whatever the target's form.
        assert_eq!(client.get("https://a.test/range.txt").body.len(), 1000);
    }
    let plain = get(front.address, "/t.php");
    assert_eq!(plain.header("strict-transport-security"), None);
    assert!(!plain.text().contains("HTTPS="), "{}", plain.text());
    assert_eq!(front.status().requests, 15);
}

#[test]
fn a_script_that_says_strict_transport_security_itself_is_not_contradicted() {
    let keys = Keys::new();
    let (front, backends) = front(&keys, |config| {
        config.hsts_max_age = Some(Duration::from_secs(3600));
    });
    let line = "Strict-Transport-Security: max-age=1; includeSubDomains";
    backends.iter().for_each(|backend| backend.say(&format!("{line}\r\n\r\nx")));
    let head = keys.client(front.ssl.unwrap()[0]).get("/t.php").head;
    assert!(head.contains(line) && head.matches("Strict-Transport").count() == 1, "{head}");
}

#[test]
fn versions_that_are_not_wanted_are_not_spoken() {
    let keys = Keys::new();
    let (front, _backends) = front(&keys, |config| config.ssl_protocols = vec![Protocol::Tls13]);
    let [address, _] = front.ssl.unwrap();
    assert_eq!(keys.client(address).get("/range.txt").status, 200);
    let refused = secure(&keys.trust(&[&TLS12]), dial(address), "a.test");
    let why = refused.err().expect("1.2 is refused").to_string();
    assert!(why.contains("ProtocolVersion"), "it is told why: {why}");
}

#[test]
fn the_name_chooses_the_certificate_and_the_host_the_site() {
    let keys = Keys::new();
    keys.sign("b", &["b.test", "*.b.test"]);
    let other = crate::front::Tree::new();
    other.write("range.txt", "of b");
    let root = other.root.to_str().unwrap().to_owned();
    let (front, _backends) = front(&keys, |config| {
        let names = "server_name = [\"b.test\", \"*.b.test\"]";
        let text = format!("{names}\nroot = {root:?}\n{}", keys.lines("b"));
        config.sites = vec![
            toml::from_str::<site::Config>(&text).unwrap(),
            toml::from_str("server_name = [\"c.test\"]").unwrap(),
        ];
    });
    let [address, _] = front.ssl.unwrap();
    let mut trust = keys.trust(rustls::ALL_VERSIONS);
    for (name, certificate) in
        [("b.test", "b"), ("x.b.test", "b"), ("a.test", "a"), ("127.0.0.1", "a")]
    {
        let client = secured(&trust, address, name);
        let shown = client.stream.conn.peer_certificates().unwrap();
        assert_eq!(shown[0], keys.certificate(certificate), "{name}");
    }
    // A site without one of its own, and a name that nobody has, get that of the section.
    for name in ["c.test", "nobody.test"] {
        let refused = secure(&trust, dial(address), name).err().expect("not its name");
        assert!(refused.to_string().contains("not valid for name"), "{refused}");
    }
    let mut client = secured(&trust, address, "b.test");
    client.send("GET /range.txt HTTP/1.1\r\nHost: b.test\r\n\r\n");
    assert_eq!(client.answer().text(), "of b");
    client.send("GET /range.txt HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.answer().body.len(), 1000, "the host says whose site it is");
    let alpn = std::sync::Arc::make_mut(&mut trust);
    alpn.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let client = secured(&trust, address, "a.test");
    assert_eq!(client.stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    std::sync::Arc::make_mut(&mut trust).alpn_protocols = vec![b"h2".to_vec()];
    let refused = secure(&trust, dial(address), "a.test").err().expect("no common protocol");
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
}

#[test]
fn a_client_that_comes_back_is_known() {
    let keys = Keys::new();
    let (front, _backends) = front(&keys, |_| {});
    let [address, _] = front.ssl.unwrap();
    for version in [&TLS12, &TLS13] {
        let trust = keys.trust(&[version]);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut client = secured(&trust, address, "a.test");
            assert_eq!(client.get("/range.txt").status, 200);
            assert_eq!(client.stream.conn.handshake_kind(), Some(expected), "{version:?}");
        }
    }
}

#[test]
fn the_plain_port_sends_everything_to_https() {
    let keys = Keys::new();
    let (front, _backends) = front(&keys, |config| {
        config.ssl_redirect = true;
        config.ssl_port = 8443;
        config.hsts_max_age = Some(Duration::from_secs(60));
        config.deny = vec!["/htmldir".into()];
        let text = "server_name = [\"plain.test\"]\nssl_redirect = false";
        config.sites = vec![toml::from_str(text).unwrap()];
        config.set_real_ip_from = vec!["127.0.0.2/32".parse().unwrap()];
    });
    let mut client = Client::connect(front.address);
    let mut ask = |line: &str, host: &str| {
        client.send(format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.answer()
    };
    for (line, host, location) in [
        ("GET /range.txt?a=b", "a.test", "https://a.test:8443/range.txt?a=b"),
        ("GET //evil.test/", "a.test:80", "https://a.test:8443//evil.test/"),
        ("GET /t.php/x%20y", "A.Test", "https://A.Test:8443/t.php/x%20y"),
        ("GET /htmldir/", "a.test", "https://a.test:8443/htmldir/"),
        ("POST /t.php", "a.test", "https://a.test:8443/t.php"),
    ] {
        let answer = ask(line, host);
        assert_eq!((answer.status, answer.header("location")), (301, Some(location)), "{line}");
        assert_eq!(answer.header("strict-transport-security"), None, "not without TLS");
    }
    assert_eq!(ask("GET /range.txt", "plain.test").status, 200);
    assert_eq!(ask("GET /range.txt", "a%2ftest").status, 400, "no such host is sent on");
    let [address, _] = front.ssl.unwrap();
    assert_eq!(keys.client(address).get("/range.txt").status, 200);
}

#[test]
fn a_proxy_that_ends_tls_is_not_sent_in_a_circle() {
    let backends = Backend::pair();
    let front = Front::start_with(backends.each_ref().map(|it| it.address), |config| {
        config.set_real_ip_from = vec!["127.0.0.0/8".parse().unwrap()];
        config.ssl_redirect = true;
        config.hsts_max_age = Some(Duration::from_secs(60));
        config.check(&[]).unwrap();
    });
    let mut client = Client::connect(front.address);
    client.request("GET", "/range.txt", "X-Forwarded-Proto: https\r\n");
    let answer = client.answer();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("strict-transport-security"), Some("max-age=60"));
    client.request("GET", "/range.txt", "X-Forwarded-Proto: http\r\n");
    assert_eq!(client.answer().header("location"), Some("https://a.test/range.txt"));
}

#[test]
fn requests_follow_one_another_and_come_together() {
    let keys = Keys::new();
    let (front, _backends) = front(&keys, |_| {});
    let [address, _] = front.ssl.unwrap();
    let mut client = keys.client(address);
    for _ in 0..3 {
        assert_eq!(client.get("/range.txt").body.len(), 1000);
        assert!(client.get("/t.php").text().contains("HTTPS=on\n"));
    }
    let targets = ["/range.txt", "/t.php", "/large.bin", "/no"].repeat(10);
    let together: Vec<String> = targets
        .iter()
        .map(|target| format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"))
        .collect();
    client.send(together.concat());
    for target in targets {
        let answer = client.answer();
        let expected = match target {
            "/range.txt" => 1000,
            "/large.bin" => 3_000_000,
            _ => answer.body.len(),
        };
        assert_eq!(answer.body.len(), expected, "{target}");
        assert_eq!(answer.status, if target == "/no" { 404 } else { 200 });
    }
    // One byte in a record.
    for byte in b"GET /range.txt HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n" {
        client.send([*byte]);
    }
    assert_eq!(client.answer().status, 200);
    assert!(client.is_closed(), "with close_notify, or the client would complain");
}

#[test]
fn a_crowd_shakes_hands_at_once() {
    let keys = Keys::new();
    let (front, _backends) = front(&keys, |_| {});
    let [address, _] = front.ssl.unwrap();
    let trust = keys.trust(rustls::ALL_VERSIONS);
    let clients: Vec<_> = (0..64)
        .map(|_| {
            let trust = trust.clone();
            std::thread::spawn(move || {
                let mut client = secured(&trust, address, "a.test");
                client.get("/range.txt").status
            })
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().unwrap(), 200);
    }
    front.wait("nobody is left", |status| status.connections == 0);
}

#[test]
fn a_plain_request_on_the_port_of_https_is_told() {
    let keys = Keys::new();
    let page = std::env::temp_dir().join(format!("tandem-497-{}", std::process::id()));
    std::fs::write(&page, "come in TLS").unwrap();
    for is_own in [false, true] {
        let (front, _backends) = front(&keys, |config| {
            config.ssl_redirect = true;
            config.hsts_max_age = Some(Duration::from_secs(60));
            if is_own {
                config.error_page.insert("497".into(), page.to_str().unwrap().into());
            }
        });
        let [address, _] = front.ssl.unwrap();
        let mut client = Client::connect(address);
        client.send("GET /range.txt HT");
        std::thread::sleep(Duration::from_millis(20));
        client.send("TP/1.1\r\nHost: a.test\r\n\r\n");
        let answer = client.answer();
        assert_eq!(answer.status, 400);
        let text = "The plain HTTP request was sent to HTTPS port";
        assert!(answer.text().contains(if is_own { "come in TLS" } else { text }));
        assert_eq!(answer.header("strict-transport-security"), None);
        assert!(client.is_closed());
        assert_eq!(front.status().by_class, [0, 0, 0, 1, 0]);
    }
    let _ = std::fs::remove_file(page);
}

#[test]
fn garbage_is_closed_and_half_a_handshake_has_its_time() {
    let keys = Keys::new();
    let limit = Duration::from_millis(600);
    let (front, _backends) = front(&keys, |config| config.request_limit = limit);
    let [address, _] = front.ssl.unwrap();
    for garbage in [&b"\0\0\0\0"[..], b"\x80\x2e\x01\x03\x01", b"\xff\xfe", b"\r\n\r\n"] {
        let mut client = Client::connect(address);
        client.send(garbage);
        assert!(client.is_closed(), "{garbage:?}");
    }
    // It begins as TLS and is none: the alert, and the end.
    let mut client = Client::connect(address);
    client.send([22, 3, 1, 0, 4, 2, 0, 0, 0]);
    let mut alert = Vec::new();
    client.stream.read_to_end(&mut alert).unwrap();
    assert_eq!(alert[..5], [21, 3, 3, 0, 2], "{alert:?}");
    front.wait("they are gone", |status| status.connections == 0);
    for begun in [&b""[..], &[22], &[22, 3, 1, 1, 0, 1, 0, 0, 252]] {
        let start = Instant::now();
        let mut client = Client::connect(address);
        client.send(begun);
        assert!(client.is_closed(), "without a word");
        let elapsed = start.elapsed();
        assert!(elapsed >= limit && elapsed < limit * 4, "{begun:?}: {elapsed:?}");
    }
    // The first request has the whole time again, and the answer that it was late is sealed.
    let socket = dial(address);
    std::thread::sleep(limit / 2);
    let mut client = secure(&keys.trust(rustls::ALL_VERSIONS), socket, "a.test").unwrap();
    std::thread::sleep(limit * 3 / 4);
    client.send("GET /range.txt HT");
    assert_eq!(client.answer().status, 408);
}

#[test]
fn the_header_of_a_proxy_comes_before_the_handshake() {
    let keys = Keys::new();
    let (front, _backends) = front(&keys, |config| {
        config.set_real_ip_from = vec!["127.0.0.0/8".parse().unwrap()];
        config.proxy_protocol = true;
    });
    let [address, _] = front.ssl.unwrap();
    let trust = keys.trust(rustls::ALL_VERSIONS);
    let v1 = b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 443\r\n".to_vec();
    let v2 =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc0\x00\x02\x08\x04\xd2\x01\xbb";
    for (header, pieces) in [(&v1[..], 1), (&v1[..], 5), (&v2[..], 1), (&v2[..], 7)] {
        let mut socket = dial(address);
        for piece in header.chunks(header.len().div_ceil(pieces)) {
            socket.write_all(piece).unwrap();
            if pieces > 1 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let mut client = secure(&trust, socket, "a.test").unwrap();
        let text = client.get("/t.php").text();
        for line in ["REMOTE_ADDR=192.0.2.7", "REMOTE_PORT=1234", "SERVER_PORT=443", "HTTPS=on"] {
            assert!(text.contains(&format!("{line}\n")), "{line}: {text}");
        }
    }
    let mut client = Client::connect(address);
    client.send("GET / HTTP/1.1\r\n\r\n");
    assert!(client.is_closed(), "no header, no answer");
    let mut client = Client::connect(address);
    client.send([&v1[..], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    assert_eq!(client.answer().status, 400, "a plain request behind the header");
}

#[test]
fn clients_that_a_proxy_names_are_counted_before_the_handshake() {
    let keys = Keys::new();
    let (front, _backends) = front(&keys, |config| {
        config.set_real_ip_from = vec!["127.0.0.0/8".parse().unwrap()];
        config.proxy_protocol = true;
        config.connections_max_per_client = 1;
    });
    let [address, _] = front.ssl.unwrap();
    let trust = keys.trust(rustls::ALL_VERSIONS);
    let header = |client: &str| format!("PROXY TCP4 {client} 192.0.2.8 1234 443\r\n");
    let mut clients = ["192.0.2.1", "192.0.2.1", "192.0.2.2"].map(|client| {
        let mut socket = dial(address);
        socket.write_all(header(client).as_bytes()).unwrap();
        secure(&trust, socket, "a.test").unwrap()
    });
    let statuses = clients.each_mut().map(|client| client.get("/range.txt").status);
    assert_eq!(statuses, [200, 503, 200]);
    assert_eq!(clients[0].get("/range.txt").status, 200, "and on");
    // The header and what follows it in one piece: not before it is counted, and then at once.
    let mut client = Client::connect(address);
    client.send(header("192.0.2.3") + "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status, 400, "a plain request");
}

#[test]
fn the_end_is_told_and_a_cut_answer_has_none() {
    let keys = Keys::new();
    let (front, backends) = front(&keys, |_| {});
    let [address, _] = front.ssl.unwrap();
    let mut client = keys.client(address);
    client.get("/range.txt");
    client.stream.conn.send_close_notify();
    client.stream.flush().unwrap();
    assert!(client.is_closed(), "the client's goodbye is answered");
    // A request with the goodbye behind it is answered all the same.
    let mut client = keys.client(address);
    client.request("GET", "/large.bin", "");
    client.stream.conn.send_close_notify();
    client.stream.flush().unwrap();
    assert_eq!(client.answer().body.len(), 3_000_000);
    assert!(client.is_closed());
    // Only the missing goodbye tells an HTTP/1.0 client that the script broke off.
    let text = crate::backend::stdout("A: b\r\n\r\nhalf of it");
    backends.iter().for_each(|it| it.set(Mode::Raw(vec![text.clone(), vec![9; 8]])));
    let mut client = keys.client(address);
    client.send("GET /t.php HTTP/1.0\r\nHost: a.test\r\n\r\n");
    let mut all = Vec::new();
    let end = client.stream.read_to_end(&mut all).expect_err("it was cut");
    assert_eq!(end.kind(), ErrorKind::UnexpectedEof);
    assert!(all.ends_with(b"half of it"), "{:?}", String::from_utf8_lossy(&all));
}

#[test]
fn draining_is_as_without_tls() {
    let keys = Keys::new();
    let (front, backends) = front(&keys, |_| {});
    let [address, virtual_address] = front.ssl.unwrap();
    let mut own = keys.client(address);
    own.get("/range.txt");
    let mut idle = keys.client(virtual_address);
    idle.get("/range.txt");
    backends.iter().for_each(|it| it.set(Mode::Slow(Duration::from_millis(1500))));
    let mut busy = keys.client(virtual_address);
    busy.request("GET", "/t.php", "");
    front.wait("it is at php", |status| status.in_flight == 1);
    // Half a record is a request on its way.
    let mut halfway = keys.client(virtual_address);
    halfway.get("/range.txt");
    let request = b"GET /range.txt HTTP/1.1\r\nHost: a.test\r\n\r\n";
    halfway.stream.conn.writer().write_all(request).unwrap();
    let mut record = Vec::new();
    halfway.stream.conn.write_tls(&mut record).unwrap();
    halfway.stream.sock.write_all(&record[..20]).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let mut draining = routes();
    draining.web = WebIntake::Draining;
    front.set_routes(draining);
    let short = Duration::from_millis(300);
    let refused = std::net::TcpStream::connect_timeout(&virtual_address, short);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TimedOut, "left to the other host");
    assert!(idle.is_closed(), "with a goodbye");
    halfway.stream.sock.write_all(&record[20..]).unwrap();
    let answer = halfway.answer();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(halfway.is_closed());
    assert!(!front.is_drained());
    let answer = busy.answer();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(busy.is_closed());
    let start = Instant::now();
    while !front.is_drained() {
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", front.status());
    }
    assert_eq!(own.get("/range.txt").status, 200, "the host's own address goes on");
}

/// A client that people use, where there is one.
#[test]
fn curl_comes_in_tls() {
    let keys = Keys::new();
    let (front, _backends) = front(&keys, |_| {});
    let [address, _] = front.ssl.unwrap();
    let ca = keys.path("ca.pem");
    for version in ["--tlsv1.2", "--tlsv1.3"] {
        let at = format!("https://localhost:{}", address.port());
        let connect = format!("localhost:{0}:127.0.0.1:{0}", address.port());
        let targets = [format!("{at}/range.txt"), format!("{at}/large.bin")];
        let run = Command::new("curl")
            .args(["-sS", "--cacert", &ca, version, "--connect-to", &connect, "--fail"])
            .args(["-w", "[%{http_code} %{num_connects}]", "-o", "/dev/null"])
            .args([&targets[0], "-o", "/dev/null", &targets[1]])
            .output();
        let Ok(output) = run else {
            eprintln!("curl is not installed");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text, "[200 1][200 0]", "{}", String::from_utf8_lossy(&output.stderr));
    }
}
